package web

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	ticketParameter = "ticket"         // name of the parameter that contains a ticket
	ticketTime      = 30 * time.Second // maximum time between the request for a ticket and the start of the download
	maxTickets      = 256              // maximum number of unused tickets
)

// tickets lets a browser download a file that requires the token. A browser that follows a link cannot send the token, and a
// script that can send it would have to keep the whole answer in memory. So the page's script sends the token to request a
// ticket, and lets the browser follow a link that contains the ticket.
//
// A ticket is a random text that replaces the token in one GET request. The request must have the path and the parameters for
// which the ticket was issued. A ticket is valid for ticketTime, and only as long as the token stays the same.
type tickets struct {
	downloads map[string]download // downloads by the file's name

	mu   sync.Mutex
	open map[[sha256.Size]byte]ticket // unused tickets by the hash of their text, so the time of a lookup reveals nothing about the text
}

type ticket struct {
	target  string            // download that the ticket is for; see ticketTarget
	token   [sha256.Size]byte // hash of the token
	expires time.Time
}

// ticketTarget returns the path and the parameters of a download as one text, without the ticket.
func ticketTarget(path string, query url.Values) string {
	query.Del(ticketParameter)
	return path + "?" + query.Encode()
}

// download is a file that can be downloaded with a ticket.
type download struct {
	path  string
	serve http.HandlerFunc
}

// serveTicket answers with a ticket for a download. The request's parameter "file" names the file to download. The other
// parameters of the request are those of the download. If the download would fail now, serveTicket answers with the
// download's error, which the browser would otherwise not show.
func (s *tickets) serveTicket(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	file, ok := s.downloads[query.Get("file")]
	if !ok {
		writeError(w, http.StatusBadRequest, "file takes "+strings.Join(slices.Sorted(maps.Keys(s.downloads)), ", "))
		return
	}
	query.Del("file")
	answer := &heldAnswer{header: w.Header().Clone()}
	file.serve(answer, (&http.Request{Method: http.MethodHead, URL: &url.URL{Path: file.path, RawQuery: query.Encode()}}).WithContext(r.Context()))
	if answer.code >= http.StatusBadRequest {
		maps.Copy(w.Header(), answer.header)
		w.WriteHeader(answer.code)
		w.Write(answer.body)
		return
	}
	token, _ := bearerToken(r) // the token was checked, if one is required
	text, ok := s.issue(ticketTarget(file.path, query), token)
	if !ok {
		writeUnavailable(w, int(ticketTime/time.Second), fmt.Sprintf("%d downloads have been asked for and not started; try again in a moment", maxTickets))
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Ticket  string `json:"ticket"`
		Seconds int    `json:"seconds"` // time for which the ticket is valid
	}{text, int(ticketTime / time.Second)})
}

// heldAnswer records the answer of a handler, and sends nothing.
type heldAnswer struct {
	header http.Header
	code   int
	body   []byte
}

func (a *heldAnswer) Header() http.Header  { return a.header }
func (a *heldAnswer) WriteHeader(code int) { a.code = code }
func (a *heldAnswer) Write(p []byte) (int, error) {
	a.body = append(a.body, p...)
	return len(p), nil
}

// issue returns a new ticket. It returns false if there are maxTickets unused tickets already.
func (s *tickets) issue(target, token string) (text string, ok bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, t := range s.open {
		if !now.Before(t.expires) {
			delete(s.open, key)
		}
	}
	if len(s.open) >= maxTickets {
		return "", false
	}
	if s.open == nil {
		s.open = map[[sha256.Size]byte]ticket{}
	}
	text = rand.Text() // at least 128 random bits
	s.open[sha256.Sum256([]byte(text))] = ticket{target, sha256.Sum256([]byte(token)), now.Add(ticketTime)}
	return text, true
}

// redeem reports whether the GET request contains a ticket that is valid for the request's path and parameters. Afterwards
// the ticket is invalid, even if the path or the parameters do not match. The ticket must have been issued while
// token was the required token.
func (s *tickets) redeem(r *http.Request, token string) bool {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || r.Method != http.MethodGet {
		return false
	}
	key := sha256.Sum256([]byte(query.Get(ticketParameter)))
	target := ticketTarget(r.URL.Path, query)
	s.mu.Lock()
	t, found := s.open[key]
	delete(s.open, key)
	s.mu.Unlock()
	return found && t.target == target && t.token == sha256.Sum256([]byte(token)) && time.Now().Before(t.expires)
}
