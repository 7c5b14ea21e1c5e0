package remote_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capture/internal/faultproxy"
	"capture/internal/objectserver"
	"capture/store/remote"
)

// behindProxy runs f as a subtest for each kind of service. Each call of f gets a bucket of its own, which
// it reaches through a proxy.
func behindProxy(t *testing.T, f func(t *testing.T, l *remote.Location, p *faultproxy.Proxy)) {
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			p, err := faultproxy.New(b.Addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			f(t, open(t, b.URL, b.Through(p.Addr())), p)
		})
	}
}

func TestUploadResumesAfterBreaks(t *testing.T) {
	if testing.Short() {
		t.Skip("uploads large states")
	}
	t.Parallel()
	behindProxy(t, func(t *testing.T, l *remote.Location, p *faultproxy.Proxy) {
		f := probed(t, l)
		breaks := &breaker{data: bulk(largeState), every: 3 << 20, do: p.Cut}
		s := upload(t, f, bulkSource(largeState, breaks))
		if breaks.done < 3 {
			t.Errorf("only %d breaks", breaks.done)
		}
		if err := f.Prove(t.Context(), s); err != nil {
			t.Error(err)
		}
	})
}

func TestUploadSurvivesRefusal(t *testing.T) {
	if testing.Short() {
		t.Skip("waits while a service refuses")
	}
	t.Parallel()
	behindProxy(t, func(t *testing.T, l *remote.Location, p *faultproxy.Proxy) {
		f := probed(t, l)
		refuse := func() {
			p.Refuse()
			p.Cut()
			time.AfterFunc(time.Second, func() { _ = p.Accept() })
		}
		breaks := &breaker{data: bulk(largeState), every: 5 << 20, do: refuse}
		if err := f.Prove(t.Context(), upload(t, f, bulkSource(largeState, breaks))); err != nil {
			t.Error(err)
		}
		if breaks.done < 2 { // the proxy refuses connections after each 5 MiB of rows, and the upload continues later
			t.Errorf("only %d refusals", breaks.done)
		}
	})
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	behindProxy(t, func(t *testing.T, l *remote.Location, p *faultproxy.Proxy) {
		l.Patience = time.Millisecond
		f := probed(t, l)
		p.Refuse()
		p.Cut()
		_, _, err := f.Upload(t.Context(), source(3, "0/100", 1, noon))
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("the error is %v", err)
		}
		if err := p.Accept(); err != nil {
			t.Fatal(err)
		}
		if list := states(t, f); len(list) != 0 {
			t.Errorf("there is %s", names(list))
		}
	})
}

// breaker writes the JSON of a state in pieces. After each piece, it calls b.do.
type breaker struct {
	data  io.WriterTo
	every int
	do    func()
	done  int
}

func (b *breaker) WriteTo(w io.Writer) (int64, error) {
	var all bytes.Buffer
	b.data.WriteTo(&all)
	total := int64(all.Len())
	for all.Len() > 0 {
		if _, err := w.Write(all.Next(b.every)); err != nil {
			return 0, err
		}
		b.do()
		b.done++
	}
	return total, nil
}

func TestDownloadResumes(t *testing.T) {
	if testing.Short() {
		t.Skip("downloads a large state")
	}
	t.Parallel()
	behindProxy(t, func(t *testing.T, l *remote.Location, p *faultproxy.Proxy) {
		s := upload(t, probed(t, l), bulkSource(100, bulk(100)))
		r := l.Reader(t.Context(), s)
		defer r.Close()
		var got bytes.Buffer
		buf := make([]byte, 64<<10)
		cuts := 0
		for reads := 0; ; reads++ {
			n, err := r.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				break
			}
			if reads%20 == 0 {
				p.Cut()
				cuts++
			}
		}
		if cuts < 3 {
			t.Errorf("only %d cuts", cuts)
		}
		path := filepath.Join(t.TempDir(), "copy.json.gz")
		if err := os.WriteFile(path, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		bulk(100).WriteTo(&want)
		if !bytes.Equal(gunzip(t, path), want.Bytes()) {
			t.Error("the data differ")
		}
	})
}

func TestSlowService(t *testing.T) {
	if testing.Short() {
		t.Skip("uploads slowly")
	}
	t.Parallel()
	behindProxy(t, func(t *testing.T, l *remote.Location, p *faultproxy.Proxy) {
		f := probed(t, l)
		p.Throttle(1<<20, 20*time.Millisecond)
		if err := f.Prove(t.Context(), upload(t, f, bulkSource(20, bulk(20)))); err != nil {
			t.Error(err)
		}
	})
}
