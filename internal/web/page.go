package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strconv"
)

// staticFiles are the files of the page. The browser gets them as they are; there is no build step. They contain no votes: the
// page's script requests the votes from the API.
//
//go:embed static
var staticFiles embed.FS

// pagePolicy allows the page to load its own parts and to connect to its own server, and nothing else. It requires trusted
// types and allows no policy that creates them, so no script can turn a text into markup.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// contentTypes are the content types of the page's parts, by file extension. The server does not use package mime, because
// its types differ between machines.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// servePage answers with the page. If the request lacks the token, the status is 401 and the page asks the user for the token,
// because a browser cannot send a token with an address that the user types.
func servePage(w http.ResponseWriter, r *http.Request) {
	code := http.StatusOK
	if isTokenMissing(r) {
		requestToken(w)
		code = http.StatusUnauthorized
	}
	w.Header().Set("Content-Security-Policy", pagePolicy)
	sendStatic(w, r, "index.html", code)
}

func serveStatic(w http.ResponseWriter, r *http.Request) {
	sendStatic(w, r, r.PathValue("name"), http.StatusOK)
}

func sendStatic(w http.ResponseWriter, r *http.Request, name string, code int) {
	body, err := staticFiles.ReadFile(path.Join("static", name))
	if err != nil {
		serveNotFound(w, r)
		return
	}
	sum := sha256.Sum256(body)
	tag := hex.EncodeToString(sum[:8])
	h := w.Header()
	h.Set("Content-Type", contentTypes[path.Ext(name)])
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", quoteTag(tag))
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
