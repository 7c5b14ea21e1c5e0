package web

import (
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// This file implements conditional requests (RFC 9110, section 13). An entity tag or a date must identify one version of a
// file, even if the file is replaced twice within a second.

// fileTag returns the entity tag, without quotes, of an open file. The SHA-256 in the manifest is not suitable: file and
// manifest are renamed one after the other, and between the two renames the hash belongs to another version.
func fileTag(info fs.FileInfo) string {
	var inode uint64
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return strconv.FormatUint(inode, 36) + "-" + strconv.FormatInt(info.Size(), 36) + "-" + strconv.FormatInt(info.ModTime().UnixNano(), 36)
}

func quoteTag(tag string) string { return `"` + tag + `"` }

// matchesTag reports whether the If-None-Match header fields contain the tag. The comparison is weak, as RFC 9110 requires.
func matchesTag(ifNoneMatch []string, tag string) bool {
	for _, field := range ifNoneMatch {
		for item := range strings.SplitSeq(field, ",") {
			item = strings.TrimSpace(item)
			if item == "*" || strings.TrimPrefix(item, "W/") == quoteTag(tag) {
				return true
			}
		}
	}
	return false
}

// lastModified returns the time for the Last-Modified header, which has no fractions of a second. A file written in the current
// second may be replaced again within that second. For such a file, lastModified returns the previous second, so that a date
// never stands for two versions.
func lastModified(modified time.Time) time.Time {
	second := modified.Truncate(time.Second)
	if !time.Now().Truncate(time.Second).After(second) {
		second = second.Add(-time.Second)
	}
	return second
}

// withoutAmbiguousDates returns the request without those conditions whose date may stand for two versions of the file that
// were written in the same second.
func withoutAmbiguousDates(r *http.Request, modified time.Time) *http.Request {
	isYoung := !lastModified(modified).Equal(modified.Truncate(time.Second))
	ifRange := r.Header.Get("If-Range")
	rangeByDate := ifRange != "" && !strings.HasSuffix(ifRange, `"`)
	if !isYoung && !rangeByDate {
		return r
	}
	r = r.Clone(r.Context())
	if isYoung {
		r.Header.Del("If-Modified-Since")
	}
	if rangeByDate {
		r.Header.Del("If-Range")
		r.Header.Del("Range")
	}
	return r
}

// wantsGzip reports whether the answer is to be compressed. A range, or a condition other than If-None-Match, refers to the
// uncompressed file, so an answer to such a request is not compressed.
func wantsGzip(r *http.Request) bool {
	for _, name := range []string{"Range", "If-Match", "If-Unmodified-Since", "If-Modified-Since"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	return acceptsGzip(r)
}

func acceptsGzip(r *http.Request) bool {
	for _, field := range r.Header.Values("Accept-Encoding") {
		for item := range strings.SplitSeq(field, ",") {
			name, params, _ := strings.Cut(item, ";")
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
