package remote_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"capture/internal/objectserver"
	"capture/store/remote"
)

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

// TestWrongClock makes a service refuse a request because this machine's clock is wrong by more than 15 minutes. It checks
// that the error says how wrong the clock is, and does not contain the key.
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

// TestExpiredToken checks that the error names the time at which the SAS token expired, and does not contain the token.
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

// anHourAhead forwards requests to versitygw, and lets versitygw's clock appear an hour ahead. versitygw compares the time
// of each request with its clock, so anHourAhead sets the time of each request back by an hour. It sets the time of each
// response ahead by an hour.
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

// azureAnHourAhead forwards requests to Azurite. Azurite does not compare the time of a request with its clock, so
// azureAnHourAhead does. It responds as Azure Storage does to a request that is older than 15 minutes ("Authorize with
// Shared Key" in its REST reference).
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
