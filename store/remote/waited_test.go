package remote_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"capture/internal/objectserver"
)

// TestTransfersAreNoWaiting uploads to a service that receives each object slowly, and then refuses it. Only the pauses between
// the transfers, and the time in which no bytes move, must count as waiting.
func TestTransfersAreNoWaiting(t *testing.T) {
	if testing.Short() {
		t.Skip("waits while a service refuses")
	}
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(&url.URL{Scheme: "http", Host: b.Addr})
				r.Out.Host = r.In.Host
			}}
			var receiving atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, ".json.gz") {
					proxy.ServeHTTP(w, r)
					return
				}
				began := time.Now()
				for piece := make([]byte, 64<<10); ; time.Sleep(20 * time.Millisecond) {
					if _, err := io.ReadFull(r.Body, piece); err != nil {
						break
					}
				}
				receiving.Add(int64(time.Since(began)))
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			defer server.Close()
			l := open(t, b.URL, b.Through(strings.TrimPrefix(server.URL, "http://")))
			l.Patience = 2 * time.Second // long enough for about three attempts
			f := probed(t, l)
			before, began := l.Waited(), time.Now()
			if _, _, err := f.Upload(t.Context(), source(10_000, "0/100", 1, noon)); err == nil {
				t.Fatal("the upload succeeded")
			}
			took, waited := time.Since(began), l.Waited()-before
			if sent := time.Duration(receiving.Load()); sent == 0 || waited > took-sent {
				t.Errorf("of %s, %s are waiting, but the service has received data for %s", took, waited, sent)
			}
			if waited == 0 {
				t.Error("the pauses are no waiting")
			}
		})
	}
}
