package web

import (
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

const maxToken = 4 << 10

// tokenFile is the path of the file that holds the token, "" for none. The file is read for every request: it is small,
// and no comparison of times and sizes can miss a change that way.
type tokenFile string

// read returns the token without the white space around it.
func (t tokenFile) read() (string, error) {
	// A FIFO must not hold the request up.
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
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("read token file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	switch {
	case len(b) > maxToken:
		return "", fmt.Errorf("read token file %s: longer than %d bytes", string(t), maxToken)
	case token == "":
		return "", fmt.Errorf("read token file %s: it is empty; write the token into it", string(t))
	case strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }):
		return "", fmt.Errorf("read token file %s: the token has a character that no header can carry; use letters and digits", string(t))
	}
	return token, nil
}

// refuseToken lets in who sends the token. A token file that can't be read opens nothing.
func (s *Server) refuseToken(r *http.Request) *refusal {
	want, err := s.token.read()
	if err != nil {
		if skipped, ok := s.failures.allow(); ok {
			s.log.Error("requests are refused because of the token file", "error", err, "more_left_out", skipped)
		}
		what := "can't be read"
		if errors.Is(err, os.ErrNotExist) {
			what = "is missing"
		}
		return &refusal{http.StatusServiceUnavailable, "capture's token file " + what + ", so every request is refused; its error log says more"}
	}
	given, ok := bearer(r)
	if !ok {
		return &refusal{http.StatusUnauthorized, "this needs the token: send it as Authorization: Bearer …"}
	}
	// Hashing first keeps the token's length from showing in the time, too.
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return &refusal{http.StatusUnauthorized, "the token is not the one in capture's token file"}
	}
	return nil
}

func bearer(r *http.Request) (string, bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}
