package web

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxGzips is how many downloads are compressed at a time; more go out as they are, to leave the processor to the capture.
const maxGzips = 4

// download answers with feedback.json. The file is opened once, so one version is sent whole, however often it is
// replaced meanwhile.
func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	f, info, err := openRegular(s.path)
	if err != nil {
		s.downloadFailed(w, err)
		return
	}
	defer f.Close()

	etag := fileTag(info)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Disposition", `inline; filename="feedback.json"`)
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	if !wantsGzip(r) || !s.sendGzip(w, r, f, info, etag+"-gzip") {
		s.sendPlain(w, r, f, info, etag)
	}

	rw := w.(*response)
	if r.Method == http.MethodGet && (rw.code == http.StatusOK || rw.code == http.StatusPartialContent) {
		s.log.Info("download", "code", rw.code, "bytes", rw.bytes, "encoding", h.Get("Content-Encoding"),
			"remote", remoteHost(r), "milliseconds", milliseconds(begun))
	}
}

func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open %s: not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func (s *Server) downloadFailed(w http.ResponseWriter, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "feedback.json is not written yet; see /readyz for what it waits for")
		return
	}
	if skipped, ok := s.failures.allow(); ok {
		s.log.Error("download failed", "error", err, "more_left_out", skipped)
	}
	fail(w, http.StatusServiceUnavailable, "feedback.json can't be read; see /readyz and the error log")
}

// fileTag is the entity tag, without quotes, of the very file that was opened. The manifest's SHA-256 would do for most
// versions, but file and manifest are two renames, and in between two versions of one length could be mixed up.
func fileTag(info fs.FileInfo) string {
	var inode uint64
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return strconv.FormatUint(inode, 36) + "-" + strconv.FormatInt(info.Size(), 36) + "-" + strconv.FormatInt(info.ModTime().UnixNano(), 36)
}

func (s *Server) sendPlain(w http.ResponseWriter, r *http.Request, f *os.File, info fs.FileInfo, etag string) {
	w.Header().Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, withoutUnsureDates(r, info.ModTime()), "", lastModified(info.ModTime()), f)
}

// sendGzip sends the file compressed on the way, unless enough others are being compressed. It has an entity tag of its
// own, since its bytes are others.
func (s *Server) sendGzip(w http.ResponseWriter, r *http.Request, f *os.File, info fs.FileInfo, etag string) bool {
	unchanged := matchesTag(r.Header.Values("If-None-Match"), etag)
	if !unchanged {
		select {
		case s.gzips <- struct{}{}:
			defer func() { <-s.gzips }()
		default:
			return false
		}
	}
	h := w.Header()
	h.Set("ETag", `"`+etag+`"`)
	h.Set("Last-Modified", lastModified(info.ModTime()).UTC().Format(http.TimeFormat))
	if unchanged {
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	h.Set("Content-Encoding", "gzip")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return true
	}
	zw, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // fails for unknown levels only
	_, err := io.Copy(zw, io.LimitReader(f, info.Size()))
	if err == nil {
		err = zw.Close()
	}
	if err != nil {
		panic(http.ErrAbortHandler) // an answer that ends in the regular way would pass for whole
	}
	return true
}

// wantsGzip says whether the answer is to be compressed. Ranges and the rarer conditions are about the plain bytes.
func wantsGzip(r *http.Request) bool {
	for _, name := range []string{"Range", "If-Match", "If-Unmodified-Since", "If-Modified-Since"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	return acceptsGzip(r)
}

func acceptsGzip(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(part, ";")
			if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
				continue
			}
			q, found := strings.CutPrefix(strings.ToLower(strings.TrimSpace(params)), "q=")
			if !found {
				return true
			}
			weight, err := strconv.ParseFloat(q, 64)
			return err == nil && weight > 0
		}
	}
	return false
}

// matchesTag compares If-None-Match with one of our tags, weakly as RFC 9110 says.
func matchesTag(lines []string, etag string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			part = strings.TrimSpace(part)
			if part == "*" || strings.TrimPrefix(part, "W/") == `"`+etag+`"` {
				return true
			}
		}
	}
	return false
}

// lastModified is the time that goes into the header. It counts whole seconds only, and the file may be replaced again
// in the second that runs: until that is over, the second before is named, so that a date never stands for two versions.
func lastModified(t time.Time) time.Time {
	t = t.Truncate(time.Second)
	if !time.Now().Truncate(time.Second).After(t) {
		t = t.Add(-time.Second)
	}
	return t
}

// withoutUnsureDates takes out the conditions by date that could mix up two versions of one second.
func withoutUnsureDates(r *http.Request, modified time.Time) *http.Request {
	young := !lastModified(modified).Equal(modified.Truncate(time.Second))
	ifRange := r.Header.Get("If-Range")
	byDate := ifRange != "" && !strings.HasSuffix(ifRange, `"`)
	if !young && !byDate {
		return r
	}
	r = r.Clone(r.Context())
	if young {
		r.Header.Del("If-Modified-Since")
	}
	if byDate {
		r.Header.Del("If-Range")
		r.Header.Del("Range")
	}
	return r
}
