package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	"capture/store/disk"
)

// tokenFile is the file that contains the bearer token. It is read for every request, because a new token may leave the
// file's time and size unchanged. The file is small, so reading it takes little time.
type tokenFile struct {
	path    string
	tickets *tickets
	log     hclog.Logger

	mu       sync.Mutex
	weakness string // weaknesses that were found last, or ""; weaknesses are logged only if they differ from these
}

// newTokenFile returns the tokenFile at path. It logs weaknesses of the present token. It does not fail if the file cannot be
// read; each request then reports the error.
func newTokenFile(path string, tickets *tickets, log hclog.Logger) *tokenFile {
	t := &tokenFile{path: path, tickets: tickets, log: log}
	_, _ = t.read()
	return t
}

// check returns nil if the request carries the token, or a ticket in its place. If the token file cannot be read, it refuses
// every request.
func (t *tokenFile) check(r *http.Request) *refusal {
	want, err := t.read()
	if err != nil {
		problem := "can't be read"
		if errors.Is(err, os.ErrNotExist) {
			problem = "is missing"
		}
		text := "every request is refused because capture's token file " + problem + "; see the error log"
		return &refusal{code: http.StatusServiceUnavailable, text: text, err: err}
	}
	given, ok := bearerToken(r)
	switch {
	case !ok && r.URL.Query().Has(ticketParameter):
		if t.tickets.redeem(r, want) {
			return nil
		}
		text := "this link was used already, or is too old, or is for another download; start the download again on the page"
		return &refusal{code: http.StatusUnauthorized, text: text, delay: wrongTokenDelay}
	case !ok:
		return &refusal{code: http.StatusUnauthorized, text: "a token is required; send it as Authorization: Bearer …"}
	}
	// Both hashes have the same length, so the time of the comparison does not reveal the token's length.
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		// The delay applies only to this request. Without it, one connection could try thousands of tokens per second.
		return &refusal{code: http.StatusUnauthorized, text: "the token is not the one in capture's token file", delay: wrongTokenDelay}
	}
	return nil
}

// read returns the token. It logs weaknesses of the token and its file.
func (t *tokenFile) read() (string, error) {
	token, mode, err := ReadToken(t.path)
	if err == nil {
		t.warn(token, mode)
	}
	return token, err
}

// ReadToken returns the token in the file at path, without surrounding white space, and the file's mode. It returns an error
// if the file contains no valid token. With such a file, the server would refuse every request.
func ReadToken(path string) (token string, mode fs.FileMode, err error) {
	f, err := disk.OpenLinked(path)
	if err != nil {
		return "", 0, fmt.Errorf("read token file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", 0, fmt.Errorf("read token file: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxTokenBytes+1))
	if err != nil {
		return "", 0, fmt.Errorf("read token file: %w", err)
	}
	token = strings.TrimSpace(string(b))
	switch {
	case len(b) > maxTokenBytes:
		return "", 0, fmt.Errorf("read token file %s: longer than %d bytes", path, maxTokenBytes)
	case token == "":
		return "", 0, fmt.Errorf("read token file %s: the file is empty; write the token into it", path)
	case strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }):
		return "", 0, fmt.Errorf("read token file %s: the token has a character that a header can't carry; use letters and digits", path)
	}
	return token, st.Mode(), nil
}

// warn logs weaknesses of the token and its file, unless they were logged before.
func (t *tokenFile) warn(token string, mode fs.FileMode) {
	var weakness []string
	if len(token) < minTokenLength {
		weakness = append(weakness, fmt.Sprintf("the token has fewer than %d characters and can be guessed; make one with: openssl rand -hex 32", minTokenLength))
	}
	switch {
	case mode&0o022 != 0:
		weakness = append(weakness, fmt.Sprintf("others may write the token file (mode %04o); chmod it to 0400", mode.Perm()))
	case mode&0o004 != 0:
		weakness = append(weakness, fmt.Sprintf("every user may read the token file (mode %04o); chmod it to 0400", mode.Perm()))
	}
	found := strings.Join(weakness, "; ")
	t.mu.Lock()
	isNew := found != t.weakness
	t.weakness = found
	t.mu.Unlock()
	if isNew && found != "" {
		t.log.Warn("weak token file", "file", t.path, "problem", found)
	}
}

// missingToken is the context key that marks a request for the page without a valid token.
type missingToken struct{}

func markTokenMissing(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), missingToken{}, true))
}

func isTokenMissing(r *http.Request) bool { return r.Context().Value(missingToken{}) != nil }

// requestToken sets the header field that status 401 requires.
func requestToken(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="capture"`)
}

func bearerToken(r *http.Request) (string, bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}
