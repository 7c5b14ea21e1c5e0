package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strconv"
)

// The page is these files as they are. It holds no votes: its script asks the API for them.
//
//go:embed static
var staticFiles embed.FS

// pagePolicy lets the page load its own parts and talk to its own server, and nothing else. With trusted types required
// and none defined, no script can turn a text into markup, not even by mistake.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// contentTypes are those of the page's parts; the machine's own table may differ.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// withoutToken marks a request for a part of the page that came without the token.
type withoutToken struct{}

// index answers with the page. A browser can't send the token with an address typed in: it gets the page, which asks
// for the token, under the status that says so.
func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	code := http.StatusOK
	if r.Context().Value(withoutToken{}) != nil {
		w.Header().Set("WWW-Authenticate", `Bearer realm="capture"`)
		code = http.StatusUnauthorized
	}
	w.Header().Set("Content-Security-Policy", pagePolicy)
	sendStatic(w, r, "index.html", code)
}

func (s *Server) static(w http.ResponseWriter, r *http.Request) {
	sendStatic(w, r, r.PathValue("name"), http.StatusOK)
}

func sendStatic(w http.ResponseWriter, r *http.Request, name string, code int) {
	body, err := staticFiles.ReadFile(path.Join("static", name))
	if err != nil {
		notFound(w, r)
		return
	}
	sum := sha256.Sum256(body)
	tag := hex.EncodeToString(sum[:8])
	h := w.Header()
	h.Set("Content-Type", contentTypes[path.Ext(name)])
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", `"`+tag+`"`)
	if code == http.StatusOK && matchesTag(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}
