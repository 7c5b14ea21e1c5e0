package web

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"

	"capture/internal/foldlog"
	"capture/store/disk"
)

// fileHandler serves feedback.json from disk.
type fileHandler struct {
	path        string
	isOwn       func(fs.FileInfo) bool // reports whether a file is capture's own; nil allows any regular file
	compressors *semaphore.Weighted
	downloads   *foldlog.Logger
	log         hclog.Logger
	failures    logLimiter
}

func newFileHandler(path string, isOwn func(fs.FileInfo) bool, log hclog.Logger) *fileHandler {
	return &fileHandler{
		path:        path,
		isOwn:       isOwn,
		compressors: semaphore.NewWeighted(maxCompressors),
		downloads:   foldlog.New(log, "download"),
		log:         log,
	}
}

// serveFile answers with feedback.json. It opens the file once, so the answer is one version, even if the file is replaced
// meanwhile.
func (h *fileHandler) serveFile(w http.ResponseWriter, r *http.Request) {
	f, info, err := openOwn(h.path, h.isOwn)
	if err != nil {
		h.writeOpenError(w, err)
		return
	}
	defer f.Close()

	rw := recorded(w)
	header := rw.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Disposition", `inline; filename="feedback.json"`)
	header.Set("Cache-Control", askEachTime)
	header.Set("Vary", "Accept-Encoding")
	defer func() { // deferred, since sendGzip panics if the client disconnects
		if r.Method == http.MethodGet && (rw.code == http.StatusOK || rw.code == http.StatusPartialContent) {
			h.downloads.Add(remoteHost(r), rw.bytes, "code", rw.code, "encoding", header.Get("Content-Encoding"),
				"milliseconds", rw.elapsedMilliseconds())
		}
	}()
	if !wantsGzip(r) || !h.sendGzip(rw, r, f, info) {
		sendPlain(rw, r, f, info)
	}
}

// openOwn opens the file at path if it is capture's own. It follows no symbolic link: in a folder that other users may write
// to, a link could lead to any file that capture may read.
func openOwn(path string, isOwn func(fs.FileInfo) bool) (*os.File, fs.FileInfo, error) {
	f, err := disk.OpenRegular(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && isOwn != nil && !isOwn(info) {
		err = fmt.Errorf("open %s: it is not the file that capture wrote", path)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func (h *fileHandler) writeOpenError(w http.ResponseWriter, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		writeUnavailable(w, 1, "feedback.json has not been written yet; see /readyz for the reason")
		return
	}
	if skipped, ok := h.failures.allow(); ok {
		h.log.Error("download failed", "error", err, "more_left_out", skipped)
	}
	writeError(w, http.StatusServiceUnavailable, "feedback.json can't be read; see /readyz and the error log")
}

// jsonErrors replaces the errors of http.ServeContent, which are plain text or empty, with errors in the API's form.
type jsonErrors struct {
	http.ResponseWriter
	replaced bool // whether an error has replaced the answer; if so, the body that ServeContent writes is dropped
}

func (w *jsonErrors) WriteHeader(code int) {
	text := ""
	switch code {
	case http.StatusRequestedRangeNotSatisfiable:
		text = "the file does not have the bytes that Range asks for; Content-Range has its length"
	case http.StatusPreconditionFailed:
		text = "the file has changed since; leave out If-Match and If-Unmodified-Since, or ask for the new version"
	case http.StatusInternalServerError:
		text = "feedback.json can't be read; see /readyz and the error log"
	default:
		w.ResponseWriter.WriteHeader(code)
		return
	}
	w.replaced = true
	writeError(w.ResponseWriter, code, text)
}

func (w *jsonErrors) Write(p []byte) (int, error) {
	if w.replaced {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

func sendPlain(w http.ResponseWriter, r *http.Request, f *os.File, info fs.FileInfo) {
	w.Header().Set("ETag", quoteTag(fileTag(info)))
	http.ServeContent(&jsonErrors{ResponseWriter: w}, withoutAmbiguousDates(r, info.ModTime()), "", lastModified(info.ModTime()), f)
}

// sendGzip compresses the file while it sends it. If maxCompressors downloads are being compressed already, sendGzip sends
// nothing and returns false. The compressed answer has its own entity tag, since its bytes differ from the file's.
func (h *fileHandler) sendGzip(w http.ResponseWriter, r *http.Request, f *os.File, info fs.FileInfo) bool {
	tag := fileTag(info) + "-gzip"
	unchanged := matchesTag(r.Header.Values("If-None-Match"), tag)
	if !unchanged {
		if !h.compressors.TryAcquire(1) {
			return false
		}
		defer h.compressors.Release(1)
	}
	header := w.Header()
	header.Set("ETag", quoteTag(tag))
	header.Set("Last-Modified", lastModified(info.ModTime()).UTC().Format(http.TimeFormat))
	if unchanged {
		header.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	header.Set("Content-Encoding", "gzip")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return true
	}
	zw, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // fails only for invalid levels
	_, err := io.Copy(zw, io.LimitReader(f, info.Size()))
	if err == nil {
		err = zw.Close()
	}
	if err != nil {
		panic(http.ErrAbortHandler) // a regular end would make the answer look complete
	}
	return true
}
