package remote_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capture/internal/faultproxy"
	"capture/internal/objectserver"
	"capture/store/remote"
	"capture/store/retention"
)

// behindProxy returns a bucket, a proxy in front of its server, and the variables for a client of the proxy.
func behindProxy(t *testing.T, kind string) (*objectserver.Bucket, *faultproxy.Proxy, map[string]string) {
	t.Helper()
	b := objectserver.NewBucket(t, kind)
	p, err := faultproxy.New(b.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return b, p, b.Through(p.Addr())
}

func TestUploadResumesAfterBreaks(t *testing.T) {
	if testing.Short() {
		t.Skip("uploads large states")
	}
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b, p, env := behindProxy(t, kind)
			f := probed(t, open(t, b.URL, env))
			breaks := &breaker{data: bulk(350), every: 5 << 20, do: p.Cut}
			s := upload(t, f, bulkSource(350, breaks))
			if breaks.done < 3 {
				t.Errorf("only %d breaks", breaks.done)
			}
			if err := f.Prove(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUploadSurvivesRefusal(t *testing.T) {
	if testing.Short() {
		t.Skip("waits while a service refuses")
	}
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b, p, env := behindProxy(t, kind)
			f := probed(t, open(t, b.URL, env))
			refuse := func() {
				p.Refuse()
				p.Cut()
				time.AfterFunc(time.Second, func() { _ = p.Accept() })
			}
			breaks := &breaker{data: bulk(350), every: 10 << 20, do: refuse}
			if err := f.Prove(t.Context(), upload(t, f, bulkSource(350, breaks))); err != nil {
				t.Error(err)
			}
			if breaks.done < 2 { // nothing is sent after the last one but the end
				t.Errorf("only %d refusals", breaks.done)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b, p, env := behindProxy(t, kind)
			l := open(t, b.URL, env)
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
}

// breaker is a state that calls a function each time some bytes of it have been written.
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
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b, p, env := behindProxy(t, kind)
			l := open(t, b.URL, env)
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
}

func TestSlowService(t *testing.T) {
	if testing.Short() {
		t.Skip("uploads slowly")
	}
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b, p, env := behindProxy(t, kind)
			f := probed(t, open(t, b.URL, env))
			p.Throttle(1<<20, 20*time.Millisecond)
			if err := f.Prove(t.Context(), upload(t, f, source(50_000, "0/100", 1, noon))); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWrongKey(t *testing.T) {
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			wrong := map[string]string{}
			for name, value := range b.Env {
				wrong[name] = strings.ReplaceAll(value, b.Secrets[0], strings.Repeat("c2VjcmV0", 8))
			}
			_, err := open(t, b.URL, wrong).Folder(cluster).Probe(t.Context())
			if !remote.IsDenied(err) {
				t.Errorf("the error is %v", err)
			}
			if strings.Contains(err.Error(), "c2VjcmV0") {
				t.Errorf("the error has the key: %v", err)
			}
		})
	}
}

// A service refuses requests whose time is wrong by more than 15 minutes. The error says what is wrong.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	for kind, handler := range map[string]func(*objectserver.Bucket) http.Handler{"s3": anHourAhead, "azblob": azureAnHourAhead} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			server := httptest.NewServer(handler(b))
			defer server.Close()
			_, err := open(t, b.URL, b.Through(strings.TrimPrefix(server.URL, "http://"))).Folder(cluster).Probe(t.Context())
			if !remote.IsDenied(err) || !strings.Contains(err.Error(), "ahead: set this machine's clock") {
				t.Errorf("the error is %v", err)
			}
			if strings.Contains(err.Error(), b.Secrets[0]) {
				t.Errorf("the error has the key: %v", err)
			}
		})
	}
}

// A SAS token has expired. The error says so, and not what the token is.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	b := objectserver.NewBucket(t, "azblob")
	probed(t, open(t, b.URL, b.SASToken(t, time.Now().Add(time.Hour))))
	env := b.SASToken(t, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	_, err := open(t, b.URL, env).Folder(cluster).Probe(t.Context())
	if !remote.IsDenied(err) || !strings.Contains(err.Error(), "the SAS token has expired at 2026-01-02T03:04:05Z") {
		t.Fatalf("the error is %v", err)
	}
	for _, secret := range b.Secrets {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error has a secret: %v", err)
		}
	}
	env["AZURE_STORAGE_KEY"] = "d3Jvbmc=" // with a key, the token is not used
	if _, err = open(t, b.URL, env).Folder(cluster).Probe(t.Context()); !remote.IsDenied(err) || strings.Contains(err.Error(), "SAS") {
		t.Errorf("with a wrong key, the error is %v", err)
	}
}

// anHourAhead forwards requests to versitygw as if its clock were an hour ahead: versitygw compares the time of each request with
// its clock.
func anHourAhead(b *objectserver.Bucket) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: b.Addr})
			r.Out.Host = r.In.Host
			r.Out.Header.Set("X-Amz-Date", time.Now().Add(-time.Hour).UTC().Format("20060102T150405Z"))
		},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			return nil
		},
	}
}

// azureAnHourAhead forwards requests to Azurite. Azurite does not compare their time with its clock, so azureAnHourAhead does,
// and responds as Azure Storage does to a request that is older than 15 minutes ("Authorize with Shared Key" in its REST
// reference).
func azureAnHourAhead(b *objectserver.Bucket) http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: b.Addr})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now, date := time.Now().Add(time.Hour).UTC(), r.Header.Get("X-Ms-Date")
		if at, err := http.ParseTime(date); err == nil && now.Sub(at) < 15*time.Minute {
			proxy.ServeHTTP(w, r)
			return
		}
		header := w.Header()
		header.Set("Date", now.Format(http.TimeFormat))
		header.Set("Content-Type", "application/xml")
		header.Set("X-Ms-Error-Code", "AuthenticationFailed")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "\ufeff<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the request. "+
			"Make sure the value of Authorization header is formed correctly including the signature.\nRequestId:%s\nTime:%s</Message>"+
			"<AuthenticationErrorDetail>Request date header too old: '%s'</AuthenticationErrorDetail></Error>",
			"9bd88eec-0001-0001-76dd-a410e0000000", now.Format("2006-01-02T15:04:05.0000000Z"), date)
	})
}

func TestDamagedCopy(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, place string, env map[string]string) {
		f := probed(t, open(t, place, env))
		u, err := url.Parse(place)
		if err != nil {
			t.Fatal(err)
		}
		for i, damage := range []func([]byte) []byte{
			func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			func(b []byte) []byte { return b[:len(b)-9] },
			func([]byte) []byte { return nil },
			func([]byte) []byte { return bomb(t) },
		} {
			s := upload(t, f, source(1000, "0/100", 1, noon.Add(time.Duration(i)*time.Hour)))
			if err := f.Prove(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			path, _, err := f.Download(t.Context(), s, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			name := cluster + s.URL[strings.LastIndex(s.URL, "/"):]
			replaceObject(t, u, env, name, damage(data))
			if err := f.Prove(t.Context(), s); !errors.As(err, new(*remote.DamagedError)) {
				t.Errorf("damage %d: %v", i, err)
			}
			replaceObject(t, u, env, strings.TrimSuffix(name, ".json.gz")+".manifest.json", []byte(`{"format":1}`))
			if _, err := f.Manifest(t.Context(), s); err == nil {
				t.Errorf("a manifest without a digest was accepted")
			}
		}
	})
}

func TestPrune(t *testing.T) {
	t.Parallel()
	for _, kind := range append(objectserver.Kinds, "file") {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			place, env, dir, ahead := "", map[string]string(nil), t.TempDir(), time.Duration(0)
			if kind == "file" {
				place = "file://" + dir
			} else {
				b := objectserver.NewBucket(t, kind)
				server := httptest.NewServer(datesAnHourAhead(b))
				t.Cleanup(server.Close)
				place, env, ahead = b.URL, b.Through(strings.TrimPrefix(server.URL, "http://")), time.Hour
			}
			f := probed(t, open(t, place, env))
			now := noon.Add(48 * time.Hour)
			old := upload(t, f, source(9, "0/900", 1, now.Add(-40*time.Hour))) // the highest position, so latest.json stays here
			for i := range 6 {
				upload(t, f, source(i, "0/100", 1, now.Add(-time.Duration(i)*20*time.Minute)))
			}
			upload(t, f, loss(40, now.Add(-30*time.Hour)))
			if kind == "file" {
				age(t, filepath.Join(dir, cluster), time.Hour)
			}
			// The service's clock decides, not the time that this machine's clock shows.
			removed, err := f.Prune(t.Context(), retention.Policy{Hours: 1}, now.Add(-ahead).Add(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			// Of this hour only the newest stays. The states of the hours before are not covered.
			if len(removed) != 5 {
				t.Errorf("removed %s", names(removed))
			}
			list := states(t, f)
			if got := names(list); len(list) != 3 || !strings.Contains(got, "-loss") || !strings.Contains(got, old.URL[strings.LastIndex(old.URL, "/")+1:]) {
				t.Errorf("left are %s", got)
			}
		})
	}
}

// datesAnHourAhead forwards requests. The Date of the responses is an hour ahead, so all objects are an hour old by that clock.
func datesAnHourAhead(b *objectserver.Bucket) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: b.Addr})
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			return nil
		},
	}
}

// age sets the times of all files in a folder to some time ago.
func age(t *testing.T, dir string, by time.Duration) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if err == nil {
			at := time.Now().Add(-by)
			err = os.Chtimes(filepath.Join(dir, e.Name()), at, at)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The clock of a capture is a day ahead. It does not remove the states that another capture has just uploaded, and that
// latest.json may not name yet.
func TestPruneWithWrongClock(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, place string, env map[string]string) {
		f := probed(t, open(t, place, env))
		now := time.Now().Truncate(time.Second)
		for i := range 4 {
			upload(t, f, source(i, "0/100", 1, now.Add(-time.Duration(i)*time.Minute)))
		}
		ahead := upload(t, f, source(9, "0/50", 1, now.Add(24*time.Hour)))
		removed, err := f.Prune(t.Context(), retention.Policy{Hours: 1}, now.Add(24*time.Hour))
		if err != nil || len(removed) != 0 {
			t.Errorf("removed %s (%v)", names(removed), err)
		}
		// The state with the wrong time is not the newest either: its position is lower.
		if s, _, err := f.Newest(t.Context(), states(t, f)); err != nil || s.URL == ahead.URL {
			t.Errorf("the newest is %s (%v)", s.URL, err)
		}
	})
}

func TestLeftoversAreRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := probed(t, open(t, "file://"+dir, nil))
	upload(t, f, source(5, "0/100", 1, noon))
	old := time.Now().Add(-25 * time.Hour)
	for _, name := range []string{
		"feedback-20261126T130000Z-0000000000000100-5.json.gz", ".feedback-20261126T140000Z-0000000000000100-5.json.gz-1.part",
		"feedback-20261126T150000Z-0000000000000100-5.json.gz", "other",
	} {
		path := filepath.Join(dir, cluster, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(name, "T15") { // this one is still being uploaded
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := f.Prune(t.Context(), retention.Default, noon); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, cluster))
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want := ".lock feedback-20261126T120000Z-0000000000000100-5.json.gz feedback-20261126T120000Z-0000000000000100-5.manifest.json " +
		"feedback-20261126T150000Z-0000000000000100-5.json.gz latest.json other"
	if got := strings.Join(left, " "); got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
}

func TestBadURLs(t *testing.T) {
	t.Parallel()
	env := map[string]string{"AWS_ACCESS_KEY_ID": "AKIDSECRET", "AWS_SECRET_ACCESS_KEY": "topsecret1", "AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_KEY": "dG9wc2VjcmV0MQ=="}
	for _, text := range []string{
		"", "s3:", "s3://", "s3://x", "s3://UPPER", "s3://bucket?sig=topsecret1", "s3://user:topsecret1@bucket/x", "s3://bucket/x#topsecret1", "gs://bucket/x",
		"azblob://", "azblob://a--b/x", "azblob://container/x?sv=1&sig=topsecret1", "file://", "file:///", "file://host/folder", "file:///x?endpoint=http://a",
		"s3://bucket?endpoint=ftp://x", "s3://bucket?endpoint=https://user:topsecret1@host", "https://account.blob.core.windows.net/container?sig=topsecret1",
		"s3://bucket/a%00b", "s3://bucket/" + strings.Repeat("x", 600), "%zz", "/folder", "s3://bucket/x?region=a&topsecret1",
	} {
		_, err := remote.Open(text, objectserver.Getenv(env))
		switch {
		case err == nil:
			t.Errorf("%q was accepted", text)
		case strings.Contains(err.Error(), "topsecret1"):
			t.Errorf("the error for %q has the secret: %v", text, err)
		case !strings.Contains(err.Error(), "azblob://CONTAINER/PREFIX"):
			t.Errorf("the error for %q does not say what is accepted: %v", text, err)
		}
	}
	for _, missing := range []struct {
		text string
		env  map[string]string
		want string
	}{
		{"azblob://container/x", nil, "AZURE_STORAGE_CONNECTION_STRING"},
		{"azblob://container/x", map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "AccountKey=topsecret1"}, "is not a connection string"},
		{"azblob://container/x", map[string]string{"AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_KEY": "topsecret1!"}, "AZURE_STORAGE_KEY is not"},
		{"azblob://container/x", map[string]string{"AZURE_STORAGE_ACCOUNT": "evil.example.com/", "AZURE_STORAGE_KEY": "dG9wc2VjcmV0MQ=="}, "AZURE_STORAGE_ACCOUNT"},
		{"s3://bucket", map[string]string{"AWS_ACCESS_KEY_ID": "AKIDSECRET"}, "AWS_SECRET_ACCESS_KEY"},
		{"s3://bucket", map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "topsecret1", "AWS_ENDPOINT_URL": "host:9000"}, "AWS_ENDPOINT_URL"},
	} {
		_, err := remote.Open(missing.text, objectserver.Getenv(missing.env))
		if err == nil || !strings.Contains(err.Error(), missing.want) || strings.Contains(err.Error(), "topsecret1") {
			t.Errorf("%s with %v: %v", missing.text, missing.env, err)
		}
	}
}
