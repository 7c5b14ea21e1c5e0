package remote_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"capture/internal/busy"
	"capture/internal/objectserver"
	"capture/store/manifest"
	"capture/store/remote"
	"capture/store/retention"
)

// TestHostileLatest checks that states can be uploaded, found and pruned whatever latest.json contains.
func TestHostileLatest(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, place string, env map[string]string) {
		l := open(t, place, env)
		f := probed(t, l)
		u, err := url.Parse(place)
		if err != nil {
			t.Fatal(err)
		}
		latestName := cluster + "/latest.json"
		for i, c := range []struct {
			content string
			moves   bool
		}{
			{strings.Repeat("x", 100<<10), true},
			{`{"state":"` + strings.Repeat("x", 1<<20) + `"}`, true},
			{"", true},
			{"[1]", true},
			{`{"state":"../../../etc/passwd","manifest":"../x","rows":-1,"bytes":-1}`, true},
			{`{"state":"` + cluster + `0/feedback-20261126T120000Z-0000000000000100-5.json.gz","lsn":"x/y","timeline":-5}`, true},
			{`{"state":"none","lsn":"FFFFFFFF/FFFFFFFF","timeline":2147483647}`, false},
		} {
			replaceObject(t, u, env, latestName, []byte(c.content))
			s, m, err := f.Upload(t.Context(), source(i, fmt.Sprintf("0/%X", 0x100+i), 1, noon.Add(time.Duration(i)*time.Minute)))
			if err != nil {
				t.Fatal(err)
			}
			if moved, err := f.MoveLatest(t.Context(), s, m); err != nil || moved != c.moves {
				t.Errorf("latest.json %.60q: moved %t (%v)", c.content, moved, err)
			}
			if newest, _, err := l.Newest(t.Context(), states(t, f)); err != nil || newest.URL != s.URL {
				t.Errorf("latest.json %.60q: the newest state is %s (%v)", c.content, newest.URL, err)
			}
			replaceObject(t, u, env, latestName, []byte(c.content))
			if _, err := f.Prune(t.Context(), retention.Default, noon); err != nil {
				t.Errorf("latest.json %.60q: prune: %v", c.content, err)
			}
		}
	})
}

// TestHostileManifest checks that Prove reports damage if a manifest does not describe its state. Prove must refuse a
// manifest that is larger than the limit, and its error must be short.
func TestHostileManifest(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, place string, env map[string]string) {
		l := open(t, place, env)
		f := probed(t, l)
		u, err := url.Parse(place)
		if err != nil {
			t.Fatal(err)
		}
		for i, change := range []func(m map[string]any){
			func(m map[string]any) { m["bytes"] = m["bytes"].(float64) - 1 },
			func(m map[string]any) { m["bytes"] = m["bytes"].(float64) + 1 },
			func(m map[string]any) { m["bytes"] = int64(1) << 60 },
			func(m map[string]any) { m["bytes"] = int64(9223372036854775807) },
			func(m map[string]any) { m["bytes"] = 0 },
			func(m map[string]any) { m["rows"] = 4 },
			func(m map[string]any) { m["sha256"] = strings.Repeat("0", 64) },
			func(m map[string]any) { m["table"] = "a long name" },
			func(m map[string]any) { clear(m) },
		} {
			s := upload(t, f, source(1000, "0/100", 1, noon.Add(time.Duration(i)*time.Hour)))
			name := cluster + strings.TrimSuffix(s.URL[strings.LastIndex(s.URL, "/"):], ".json.gz") + ".manifest.json"
			data, err := io.ReadAll(rawBytes(t, u, env, name))
			if err != nil {
				t.Fatal(err)
			}
			var m map[string]any
			if err := json.Unmarshal(data, &m); err != nil {
				t.Fatal(err)
			}
			change(m)
			if data, err = json.Marshal(m); err != nil {
				t.Fatal(err)
			}
			data = bytes.Replace(data, []byte("a long name"), bytes.Repeat([]byte("x"), 9<<20), 1)
			replaceObject(t, u, env, name, data)
			damaged := (*remote.DamagedError)(nil)
			if err := f.Prove(t.Context(), s); !errors.As(err, &damaged) {
				t.Errorf("change %d: Prove says %v", i, err)
			} else if len(data) > manifest.MaxBytes && !strings.Contains(err.Error(), "its manifest is too large") {
				t.Errorf("change %d: the manifest has %d bytes, and Prove says %v", i, len(data), err)
			} else if len(err.Error()) > 1000 {
				t.Errorf("change %d: the error has %d bytes", i, len(err.Error()))
			}
		}
	})
}

// TestReadLimited checks that ReadLimited reads at most one byte more than the limit.
func TestReadLimited(t *testing.T) {
	for _, size := range []int64{0, 999, 1000, 1001, 1 << 20} {
		r := strings.NewReader(strings.Repeat("x", int(size)))
		data, err := remote.ReadLimited(r, 1000)
		if size <= 1000 && (err != nil || int64(len(data)) != size) || size > 1000 && err == nil || size-int64(r.Len()) > 1001 {
			t.Errorf("of %d bytes, %d are read and %d returned: %v", size, size-int64(r.Len()), len(data), err)
		}
	}
}

// TestDownloadIsBounded checks that Download returns an error if the data are longer than the manifest allows.
func TestDownloadIsBounded(t *testing.T) {
	t.Parallel()
	place := "file://" + t.TempDir()
	u, err := url.Parse(place)
	if err != nil {
		t.Fatal(err)
	}
	f := probed(t, open(t, place, nil))
	s := upload(t, f, source(10, "0/100", 1, noon))
	replaceObject(t, u, nil, cluster+s.URL[strings.LastIndex(s.URL, "/"):], make([]byte, 1<<20))
	if _, _, err := f.Download(t.Context(), s, t.TempDir()); !errors.As(err, new(*remote.DamagedError)) {
		t.Errorf("Download says %v", err)
	}
}

// TestForeignObjects writes objects that capture would not write: directly under the prefix, in folders that look like
// folders of clusters, and more than a thousand in the folder of capture's own cluster. None of them may count as a state, and
// Prune must not remove any of them.
func TestForeignObjects(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a thousand objects")
	}
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			u, err := url.Parse(b.URL)
			if err != nil {
				t.Fatal(err)
			}
			put := objectPutter(t, u, b.Env)
			var writers errgroup.Group
			writers.SetLimit(8)
			for i := range 1010 { // more than one page of a listing
				writers.Go(func() error {
					return put(t.Context(), fmt.Sprintf("%s/feedback-%d.json.gz", cluster, i), nil)
				})
			}
			if err := writers.Wait(); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{
				"other", "latest.json/x", "12345/feedback", "00000/feedback-20261126T120000Z-0000000000000100-5.json.gz", cluster + "/a/feedback-20261126T120000Z-0000000000000100-5.json.gz", cluster + "/feedback-20261126T120000Z-0000000000000100-5.json.gz.bak",
				cluster + "/feedback-20261126T120000Z-0000000000000100-7.json.gz", // without a manifest
				cluster + "/feedback-20261126T120000Z-0000000000000100-8.manifest.json",
				cluster + "/feedback-20269999T120000Z-0000000000000100-9.json.gz", cluster + "/feedback-20269999T120000Z-0000000000000100-9.manifest.json",
			} {
				replaceObject(t, u, b.Env, name, []byte("{}"))
			}
			l := open(t, b.URL, b.Env)
			f := probed(t, l)
			s := upload(t, f, source(3, "0/100", 1, noon))
			clusters, err := l.Clusters(t.Context())
			if err != nil || len(clusters) != 1 || len(clusters[0].States) != 1 || clusters[0].States[0].URL != s.URL {
				t.Errorf("clusters are %+v (%v)", clusters, err)
			}
			if removed, err := f.Prune(t.Context(), retention.Policy{}, noon.Add(1000*time.Hour)); err != nil || len(removed) != 0 {
				t.Errorf("removed %s (%v)", names(removed), err)
			}
		})
	}
}

// TestLatestIsImmutable checks that MoveLatest gives up after some attempts if a policy of the service forbids that objects
// are replaced. The error must name this probable reason.
func TestLatestIsImmutable(t *testing.T) {
	if testing.Short() {
		t.Skip("waits while latest.json can't be replaced")
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
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/latest.json") {
					w.Header().Set("X-Ms-Error-Code", "BlobImmutableDueToPolicy")
					w.WriteHeader(map[string]int{"azblob": http.StatusConflict, "s3": http.StatusPreconditionFailed}[kind])
					return
				}
				proxy.ServeHTTP(w, r)
			}))
			defer server.Close()
			f := probed(t, open(t, b.URL, b.Through(strings.TrimPrefix(server.URL, "http://"))))
			s, m, err := f.Upload(t.Context(), source(3, "0/100", 1, noon))
			if err != nil {
				t.Fatal(err)
			}
			if moved, err := f.MoveLatest(t.Context(), s, m); moved || err == nil || !strings.Contains(err.Error(), "whether a policy forbids") {
				t.Errorf("moved: %t (%v)", moved, err)
			}
		})
	}
}

// TestPipesInFolder puts a named pipe in the place of latest.json, as somebody who may write to the folder could do. No
// function may wait for the pipe's writer, and each error must name the pipe.
func TestPipesInFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, "file://"+dir, nil)
	f := probed(t, l)
	upload(t, f, source(1, "0/100", 1, noon))
	path := filepath.Join(dir, cluster, "latest.json")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	all := states(t, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if limits, err := f.Probe(t.Context()); err != nil || !limits.Conditional || !limits.Deletes {
			t.Errorf("Probe: %+v, %v", limits, err)
		}
		_, _, newestErr := l.Newest(t.Context(), all)
		removed, pruneErr := f.Prune(t.Context(), retention.Default, noon)
		moved, moveErr := f.MoveLatest(t.Context(), all[0], source(1, "0/100", 1, noon).Manifest)
		if len(removed) > 0 || moved {
			t.Errorf("removed %+v, moved: %t", removed, moved)
		}
		for what, err := range map[string]error{"Newest": newestErr, "Prune": pruneErr, "MoveLatest": moveErr} {
			if err == nil || !strings.Contains(err.Error(), path+": it is not a regular file") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(busy.Limit(20 * time.Second)):
		t.Fatal("it waits for the writer of a pipe")
	}
}

// TestObjectForFolder checks that Clusters ignores an object with the name of a cluster's folder. Tools such as the console
// of S3 create such objects.
func TestObjectForFolder(t *testing.T) {
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			u, err := url.Parse(b.URL)
			if err != nil {
				t.Fatal(err)
			}
			upload(t, probed(t, open(t, b.URL, b.Env)), source(1, "0/100", 1, noon))
			replaceObject(t, u, b.Env, cluster+"/", nil)
			for _, place := range []string{b.URL, b.URL + "/" + cluster} {
				clusters, err := open(t, place, b.Env).Clusters(t.Context())
				if err != nil || len(clusters) != 1 || len(clusters[0].States) != 1 {
					t.Errorf("%s: %+v (%v)", place, clusters, err)
				}
			}
		})
	}
}
