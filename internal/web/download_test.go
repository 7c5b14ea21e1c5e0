package web

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func version(n int) string {
	return "[\n" + strings.Repeat(fmt.Sprintf("{\"vote_id\":%d},\n", n), 2000) + "{\"vote_id\":0}\n]\n"
}

func TestDownload(t *testing.T) {
	h := newHarness(t, nil)
	w := h.do("GET", "/feedback.json")
	if w.Code != 503 {
		t.Errorf("without a file: %d", w.Code)
	}
	errorText(t, w)

	h.replace(t, "feedback.json", version(1))
	w = h.do("GET", "/feedback.json")
	if w.Code != 200 || w.Body.String() != version(1) {
		t.Fatalf("%d, %d bytes", w.Code, w.Body.Len())
	}
	etag := w.Header().Get("ETag")
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Content-Length": fmt.Sprint(len(version(1))), "Accept-Ranges": "bytes",
		"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding",
		"Content-Disposition": `inline; filename="feedback.json"`,
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(etag, `"`) || w.Header().Get("Last-Modified") == "" {
		t.Errorf("ETag %q, Last-Modified %q", etag, w.Header().Get("Last-Modified"))
	}
	if w = h.do("HEAD", "/feedback.json"); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("ETag") != etag {
		t.Errorf("HEAD: %d, %d bytes, %s", w.Code, w.Body.Len(), w.Header().Get("ETag"))
	}
	for _, tags := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
		if w = h.do("GET", "/feedback.json", "If-None-Match", tags); w.Code != 304 || w.Body.Len() != 0 {
			t.Errorf("If-None-Match %s: %d", tags, w.Code)
		}
	}
	if n := strings.Count(h.log.String(), `"@message":"download"`); n != 1 {
		t.Errorf("%d lines for one download: %s", n, h.log)
	}
}

func TestRanges(t *testing.T) {
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", version(1))
	w := h.do("GET", "/feedback.json", "Range", "bytes=2-15")
	if w.Code != 206 || w.Body.String() != version(1)[2:16] {
		t.Fatalf("%d %q", w.Code, w.Body)
	}
	etag := w.Header().Get("ETag")
	if w = h.do("GET", "/feedback.json", "Range", "bytes=2-15", "If-Range", etag, "Accept-Encoding", "gzip"); w.Code != 206 || w.Body.String() != version(1)[2:16] {
		t.Errorf("If-Range with the same version: %d", w.Code)
	}
	if w = h.do("GET", "/feedback.json", "Range", "bytes=99999999-"); w.Code != 416 || !strings.HasPrefix(w.Header().Get("Content-Range"), "bytes */") {
		t.Errorf("beyond the end: %d %v", w.Code, w.Header())
	}
	errorText(t, w)
	many := "bytes=0-" + strings.Repeat(",0-", 1000)
	if w = h.do("GET", "/feedback.json", "Range", many); w.Body.Len() > len(version(1)) {
		t.Errorf("a thousand overlapping ranges: %d, %d bytes", w.Code, w.Body.Len())
	}

	// The new version has the same length and is written in the same second, so only the entity tag tells the two versions
	// apart.
	h.replace(t, "feedback.json", version(2))
	if w = h.do("GET", "/feedback.json", "Range", "bytes=2-15", "If-Range", etag); w.Code != 200 || w.Body.String() != version(2) {
		t.Errorf("If-Range with an old version: %d, %d bytes", w.Code, w.Body.Len())
	}
	if w = h.do("GET", "/feedback.json", "If-None-Match", etag); w.Code != 200 {
		t.Errorf("If-None-Match with an old version: %d", w.Code)
	}
	modified := w.Header().Get("Last-Modified")
	if w = h.do("GET", "/feedback.json", "Range", "bytes=2-15", "If-Range", modified); w.Code != 200 {
		t.Errorf("If-Range by date can't tell two versions of one second: %d", w.Code)
	}
	if w = h.do("GET", "/feedback.json", "If-Match", etag); w.Code != 412 {
		t.Errorf("If-Match with an old version: %d", w.Code)
	}
	errorText(t, w)
}

func TestIfModifiedSince(t *testing.T) {
	h := newHarness(t, nil)
	path := filepath.Join(h.dir, "feedback.json")
	h.replace(t, "feedback.json", version(1))
	w := h.do("GET", "/feedback.json")
	young := w.Header().Get("Last-Modified")
	h.replace(t, "feedback.json", version(2))
	if w = h.do("GET", "/feedback.json", "If-Modified-Since", young); w.Code != 200 {
		t.Errorf("replaced within a second: %d", w.Code)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if w = h.do("GET", "/feedback.json", "If-Modified-Since", old.UTC().Format(http.TimeFormat)); w.Code != 304 {
		t.Errorf("not replaced for an hour: %d", w.Code)
	}
}

func TestDownloadCompressed(t *testing.T) {
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", version(1))
	plain := h.do("GET", "/feedback.json").Header().Get("ETag")
	w := h.do("GET", "/feedback.json", "Accept-Encoding", "br;q=1, gzip;q=0.5")
	if w.Code != 200 || w.Header().Get("Content-Encoding") != "gzip" || w.Header().Get("Content-Length") != "" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	etag := w.Header().Get("ETag")
	if etag == plain {
		t.Error("both encodings have one tag")
	}
	zr, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(zr); err != nil || string(text) != version(1) {
		t.Errorf("%d bytes: %v", len(text), err)
	}
	if w = h.do("GET", "/feedback.json", "Accept-Encoding", "gzip", "If-None-Match", etag); w.Code != 304 || w.Header().Get("ETag") != etag {
		t.Errorf("If-None-Match: %d %s", w.Code, w.Header().Get("ETag"))
	}
	for _, accept := range []string{"gzip;q=0", "br", "identity", "xgzip", "gzip;q=x"} {
		if w = h.do("GET", "/feedback.json", "Accept-Encoding", accept); w.Header().Get("Content-Encoding") != "" || w.Body.String() != version(1) {
			t.Errorf("Accept-Encoding %s: %s", accept, w.Header().Get("Content-Encoding"))
		}
	}
	if w = h.do("HEAD", "/feedback.json", "Accept-Encoding", "gzip"); w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d, %d bytes", w.Code, w.Body.Len())
	}
	if !h.file.compressors.TryAcquire(maxCompressors) {
		t.Fatal("downloads are in progress already")
	}
	if w = h.do("GET", "/feedback.json", "Accept-Encoding", "gzip"); w.Body.String() != version(1) || w.Header().Get("ETag") != plain {
		t.Error("with all compressors at work the file goes out as it is")
	}
}

// TestDownloadWhileReplaced checks that a download contains only one version of the file, however often the file is replaced
// during the download.
func TestDownloadWhileReplaced(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", version(0))
	addr := h.serve(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			default:
				h.replace(t, "feedback.json", version(n%10))
			}
		}
	}()
	client := &http.Client{}
	for range 200 {
		resp, err := client.Get("http://" + addr + "/feedback.json") // the client requests compression by default
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		first := strings.SplitN(string(body), "\n", 3)[1]
		if strings.Count(string(body), first+"\n") != 2000 {
			t.Fatalf("%d bytes of several versions", len(body))
		}
	}
	close(stop)
	<-stopped
}

func TestDownloadOfAFolderOrAPipe(t *testing.T) {
	for name, create := range map[string]func(path string) error{
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		h := newHarness(t, nil)
		if err := create(filepath.Join(h.dir, "feedback.json")); err != nil {
			t.Fatal(err)
		}
		w := h.do("GET", "/feedback.json")
		if w.Code != 503 {
			t.Errorf("a %s: %d", name, w.Code)
		}
		errorText(t, w)
	}
}
