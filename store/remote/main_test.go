package remote_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"capture/internal/objectserver"
	"capture/snapshot/rowjson"
	"capture/store/manifest"
	"capture/store/remote"
)

func TestMain(m *testing.M) {
	remote.SetPartBytes(5 << 20) // S3 accepts no shorter parts
	os.Exit(objectserver.Main(m.Run))
}

// places runs f as a subtest for each kind of service: a container or bucket of a real server, and a folder.
func places(t *testing.T, f func(t *testing.T, url string, env map[string]string)) {
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			f(t, b.URL+"/some/prefix", b.Env)
		})
	}
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		f(t, "file://"+t.TempDir(), nil)
	})
}

// open opens a location. If env has a variable "endpoint", it becomes a parameter of the URL.
func open(t *testing.T, text string, env map[string]string) *remote.Location {
	t.Helper()
	if endpoint := env["endpoint"]; endpoint != "" {
		text += "?endpoint=" + url.QueryEscape(endpoint)
	}
	l, err := remote.Open(text, objectserver.Getenv(env))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const cluster = "7412345678901234567"

// probed calls Probe for the folder of the cluster, and returns the folder.
func probed(t *testing.T, l *remote.Location) *remote.Folder {
	t.Helper()
	f := l.Folder(cluster)
	if _, err := f.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// rows writes the JSON of a state with this number of rows. Each row has about 60 bytes.
type rows int

func (r rows) WriteTo(w io.Writer) (int64, error) {
	b := bytes.NewBufferString("[\n")
	for i := range int(r) {
		if i > 0 {
			b.WriteString(",\n")
		}
		fmt.Fprintf(b, `{"vote_id":%d,"comment":"%x"}`, i, uint64(i)*0x9E3779B97F4A7C15)
	}
	b.WriteString("\n]\n")
	return b.WriteTo(w)
}

// bulk is the JSON of a state with long rows. Its value is the number of rows. Each row has 64 kB, and gzip shortens it by
// only a quarter.
type bulk int

// largeState is the number of rows of a bulk that is uploaded in three parts.
const largeState = 225

// noise returns random text.
var noise = sync.OnceValue(func() []byte {
	random := make([]byte, 512<<10) // far longer than the distance at which gzip finds repetitions
	rand.NewChaCha8([32]byte{}).Read(random)
	return base64.StdEncoding.AppendEncode(nil, random)
})

func (n bulk) WriteTo(w io.Writer) (int64, error) {
	const length = 64 << 10
	total := int64(0)
	start := "[\n"
	for i := range int(n) {
		from := i * (length + 1000) % (len(noise()) - length)
		for _, text := range [][]byte{fmt.Appendf(nil, `%s{"vote_id":%d,"comment":"`, start, i), noise()[from : from+length], []byte(`"}`)} {
			written, err := w.Write(text)
			if total += int64(written); err != nil {
				return total, err
			}
		}
		start = ",\n"
	}
	written, err := io.WriteString(w, "\n]\n")
	return total + int64(written), err
}

// bulkSource returns a state with the given JSON, which has n rows and fills several parts.
func bulkSource(n int, data io.WriterTo) remote.Source {
	src := source(n, "0/100", 1, noon)
	src.Data = data
	return src
}

// source returns a state with n rows at a position in the WAL.
func source(n int, lsn string, timeline int, at time.Time) remote.Source {
	return remote.Source{
		Manifest: manifest.Manifest{
			Format: 1, Table: manifest.TableName{Schema: "public", Name: "votes"}, Rows: n, LSN: lsn, Timeline: timeline, SystemID: cluster,
			Columns: []rowjson.Column{{Name: "vote_id", TypeName: "integer"}, {Name: "comment", TypeName: "text"}}, Key: []string{"vote_id"}, WrittenAt: at,
		},
		Time: at, Data: rows(n),
	}
}

// upload uploads a state and moves latest.json.
func upload(t *testing.T, f *remote.Folder, src remote.Source) remote.State {
	t.Helper()
	s, m, err := f.Upload(t.Context(), src)
	if err == nil {
		_, err = f.MoveLatest(t.Context(), s, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func states(t *testing.T, f *remote.Folder) []remote.State {
	t.Helper()
	list, err := f.States(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// names returns the names of states, for messages.
func names(list []remote.State) string {
	var names []string
	for _, s := range list {
		names = append(names, s.URL[strings.LastIndex(s.URL, "/")+1:])
	}
	return strings.Join(names, " ")
}

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func TestUploadAndDownload(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, url string, env map[string]string) {
		l := open(t, url, env)
		f := probed(t, l)
		for n, data := range map[int]io.WriterTo{0: rows(0), 3: rows(3), largeState: bulk(largeState)} {
			src := source(n, "A/B0000000", 1, noon)
			src.Data = data
			s := upload(t, f, src)
			if want := fmt.Sprintf("%s/%s/feedback-20261126T120000Z-0000000AB0000000-%d.json.gz", l, cluster, n); s.URL != want {
				t.Errorf("the state is %s, want %s", s.URL, want)
			}
			if err := l.Prove(t.Context(), s); err != nil {
				t.Error(err)
			}
			path, m, err := l.Download(t.Context(), s, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			want := sha256.New()
			size, err := data.WriteTo(want)
			if err != nil {
				t.Fatal(err)
			}
			got := gunzip(t, path)
			if sum := sha256.Sum256(got); !bytes.Equal(sum[:], want.Sum(nil)) || m.Bytes != int64(len(got)) {
				t.Errorf("%d rows came back as %d bytes, want %d; the manifest says %d", n, len(got), size, m.Bytes)
			}
		}
		clusters, err := l.Clusters(t.Context())
		if err != nil || len(clusters) != 1 || clusters[0].SystemID != cluster || len(clusters[0].States) != 3 {
			t.Errorf("clusters are %+v (%v)", clusters, err)
		}
		direct, err := open(t, url+"/"+cluster, env).Clusters(t.Context())
		if err != nil || len(direct) != 1 || direct[0].SystemID != cluster || len(direct[0].States) != 3 {
			t.Errorf("clusters of the cluster's own URL are %+v (%v)", direct, err)
		}
	})
}

// TestServiceWithoutConditions checks that states can be uploaded to a service that implements no conditional writes: a
// small state, and a state in several parts. It checks the same for a service that implements other conditional writes, but
// not a condition at the end of an upload in parts. With that service, an upload must not overwrite another state of the
// same name.
func TestServiceWithoutConditions(t *testing.T) {
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		for _, onlyParts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/only parts %t", kind, onlyParts), func(t *testing.T) {
				t.Parallel()
				b := objectserver.NewBucket(t, kind)
				proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
					r.SetURL(&url.URL{Scheme: "http", Host: b.Addr})
					r.Out.Host = r.In.Host
				}}
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					endsParts := r.URL.Query().Has("uploadId") || r.URL.Query().Get("comp") == "blocklist"
					isConditional := r.Header.Get("If-Match") != "" || r.Header.Get("If-None-Match") != ""
					if r.Method != http.MethodGet && isConditional && (endsParts || !onlyParts) {
						w.WriteHeader(http.StatusNotImplemented)
						return
					}
					proxy.ServeHTTP(w, r)
				}))
				t.Cleanup(server.Close)
				f := open(t, b.URL, b.Through(strings.TrimPrefix(server.URL, "http://"))).Folder(cluster)
				limits, err := f.Probe(t.Context())
				if want := (remote.Limits{Conditional: onlyParts, Deletes: true, Checksums: true}); err != nil || limits != want {
					t.Fatalf("limits are %+v (%v), want %+v", limits, err, want)
				}
				large := bulkSource(largeState, bulk(largeState))
				for _, src := range []remote.Source{source(3, "0/100", 1, noon), large} {
					if err := f.Prove(t.Context(), upload(t, f, src)); err != nil {
						t.Error(err)
					}
				}
				if !onlyParts {
					return
				}
				large.Data = bulk(largeState - 1) // another state, whose name is taken
				if s := upload(t, f, large); !s.Time.Equal(noon.Add(time.Second)) {
					t.Errorf("the other state is %s", s.URL)
				}
				for _, s := range states(t, f) {
					if err := f.Prove(t.Context(), s); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, url string, env map[string]string) {
		l := open(t, url, env)
		limits, err := l.Folder(cluster).Probe(t.Context())
		if want := (remote.Limits{Conditional: true, Deletes: true, Checksums: l.Checksum() != ""}); err != nil || limits != want {
			t.Errorf("limits are %+v (%v), want %+v", limits, err, want)
		}
	})
	for _, kind := range objectserver.Kinds {
		t.Run(kind+" without the right to delete", func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			f := open(t, b.URL, b.WithoutDelete(t, b.Addr)).Folder(cluster)
			limits, err := f.Probe(t.Context())
			if want := (remote.Limits{Conditional: true, Checksums: true}); err != nil || limits != want {
				t.Errorf("limits are %+v (%v), want %+v", limits, err, want)
			}
			s := upload(t, f, source(3, "0/1", 1, noon))
			if err := f.Drop(context.Background(), s); !remote.IsDenied(err) {
				t.Errorf("dropping a state: %v", err)
			}
		})
	}
}
