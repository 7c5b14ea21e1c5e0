package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
)

// tokenFile is the path of the file that holds the bearer token, "" if there is none. The file is read for every
// request: it is small, and so no change of it is missed, as one could be by comparing times and sizes.
type tokenFile string

// check returns nil if the request carries the token. If the file can't be read, no token is right.
func (t tokenFile) check(r *http.Request) *refusal {
	want, err := t.read()
	if err != nil {
		problem := "can't be read"
		if errors.Is(err, os.ErrNotExist) {
			problem = "is missing"
		}
		text := "every request is refused because capture's token file " + problem + "; see the error log"
		return &refusal{http.StatusServiceUnavailable, text, err}
	}
	given, ok := bearerToken(r)
	if !ok {
		return &refusal{code: http.StatusUnauthorized, text: "a token is required; send it as Authorization: Bearer …"}
	}
	// The hashes have one length, so the time of the comparison does not show the token's.
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return &refusal{code: http.StatusUnauthorized, text: "the token is not the one in capture's token file"}
	}
	return nil
}

// read returns the token without the white space around it.
func (t tokenFile) read() (string, error) {
	// Without O_NONBLOCK, opening a FIFO would block the request.
	f, err := os.OpenFile(string(t), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("read token file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read token file: %w", err)
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("read token file %s: not a regular file", string(t))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxTokenBytes+1))
	if err != nil {
		return "", fmt.Errorf("read token file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	switch {
	case len(b) > maxTokenBytes:
		return "", fmt.Errorf("read token file %s: longer than %d bytes", string(t), maxTokenBytes)
	case token == "":
		return "", fmt.Errorf("read token file %s: the file is empty; write the token into it", string(t))
	case strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }):
		return "", fmt.Errorf("read token file %s: the token has a character that a header can't carry; use letters and digits", string(t))
	}
	return token, nil
}

// missingToken is the context key that marks a request for the page which lacks the token.
type missingToken struct{}

func markTokenMissing(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), missingToken{}, true))
}

func isTokenMissing(r *http.Request) bool { return r.Context().Value(missingToken{}) != nil }

// requestToken sets the header field that goes with status 401.
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
