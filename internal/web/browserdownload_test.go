package web

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp/kb"
)

// TestPageDownloadsWithToken checks that the browser itself downloads files that require a token, so that the page does not
// hold them in memory. The test runs the page behind a proxy, below a path. The environment variable
// CAPTURE_TEST_DOWNLOAD_MB sets the size of the file.
func TestPageDownloadsWithToken(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	megabytes := 16
	if text := os.Getenv("CAPTURE_TEST_DOWNLOAD_MB"); text != "" {
		var err error
		if megabytes, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	h := newTableHarness(t, fiveVotes(t), func(c *Config) { c.TokenFile = writeToken(t) })
	var file bytes.Buffer
	file.WriteString("[\n{\"vote_id\":0}")
	for i := 1; file.Len() < megabytes<<20; i++ {
		file.WriteString(",\n{\"vote_id\":" + strconv.Itoa(i) + `,"text":"` + strings.Repeat("ä", i%1000) + `"}`)
	}
	file.WriteString("\n]\n")
	h.replace(t, "feedback.json", file.String())
	target, err := url.Parse("http://" + h.serve(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() }}
	front := httptest.NewServer(http.StripPrefix("/tools/capture", proxy))
	defer front.Close()
	defer front.CloseClientConnections() // otherwise Close waits for the page's stream of events
	p := openTab(t, desktop, front.URL+"/tools/capture/")
	folder := t.TempDir()
	call(p, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: folder}) // applies to the whole browser; no other test downloads a file
	p.waitFor(`document.querySelector("#token").open`)
	p.click("#token-input")
	p.write("abc")
	p.press(kb.Enter)
	p.waitFor(`document.querySelectorAll("#votes li").length === 5`)

	heap := func() float64 {
		usage := call(p, runtime.GetHeapUsage, cdp.Empty{})
		return usage.TotalSize + usage.EmbedderHeapUsedSize + usage.BackingStorageSize
	}
	before := heap()
	p.click("#get-file")
	got := awaitFile(t, folder, "feedback.json", file.Len())
	if !bytes.Equal(got, file.Bytes()) {
		t.Errorf("feedback.json arrived with %d bytes, not with its %d, or with other ones", len(got), file.Len())
	}
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("the page's heap has grown by %.0f bytes", grown)
	}

	p.click("#q")
	p.write("password")
	p.waitFor(`document.querySelectorAll("#votes li").length === 2`)
	for _, format := range []string{"json", "jsonl", "csv"} {
		p.click("#get-" + format)
		want := h.do("GET", "/api/votes."+format+"?q=password", "Authorization", "Bearer abc").Body.String()
		if got := awaitFile(t, folder, "feedback-*."+format, len(want)); string(got) != want || want == "" {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
	p.mu.Lock()
	for _, address := range p.requests {
		if strings.HasPrefix(address, "blob:") {
			t.Errorf("the page made %s", address)
		}
	}
	p.mu.Unlock()

	// If a download is refused, the browser stays on the page.
	if err := os.Remove(filepath.Join(h.dir, "feedback.json")); err != nil {
		t.Fatal(err)
	}
	p.click("#get-file")
	p.waitFor(`document.querySelector("#count").innerText.includes("has not been written")`)
	if address := p.eval("location.pathname"); address != "/tools/capture/" {
		t.Errorf("the page has gone to %v", address)
	}
	p.check(strings.TrimPrefix(front.URL, "http://"), "401", "503")
}

// awaitFile waits until the browser has downloaded a file of the given size into the folder, and returns the file's content.
func awaitFile(t *testing.T, folder, pattern string, size int) []byte {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		names, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil {
			t.Fatal(err)
		}
		if len(names) == 1 {
			if info, err := os.Stat(names[0]); err == nil && info.Size() >= int64(size) {
				content, err := os.ReadFile(names[0])
				if err != nil {
					t.Fatal(err)
				}
				return content
			}
		}
		if time.Now().After(deadline) {
			entries, _ := os.ReadDir(folder)
			t.Fatalf("%s did not arrive; there is %v", pattern, entries)
		}
	}
}
