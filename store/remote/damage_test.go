package remote_test

import (
	"bytes"
	"errors"
	"io"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"capture/store/manifest"
	"capture/store/remote"
)

// TestDamagedCopy damages copies and their manifests. A reader of such a copy must get an error, and at most one byte
// more than the size in the manifest.
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
			func([]byte) []byte { return bomb() },
		} {
			s := upload(t, f, source(1000, "0/100", 1, noon.Add(time.Duration(i)*time.Hour)))
			if err := f.Prove(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			path, m, err := f.Download(t.Context(), s, t.TempDir())
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
			r := f.JSON(t.Context(), s, m)
			if n, err := io.Copy(io.Discard, r); !errors.As(err, new(*remote.DamagedError)) || n > m.Bytes+1 {
				t.Errorf("damage %d: %d bytes are read, and the manifest says %d; %v", i, n, m.Bytes, err)
			}
			r.Close()
			replaceObject(t, u, env, strings.TrimSuffix(name, ".json.gz")+".manifest.json", []byte(`{"format":1}`))
			if _, err := f.Manifest(t.Context(), s); err == nil {
				t.Errorf("a manifest without a digest was accepted")
			}
		}
	})
}

// TestStateDamagedWhenKept uploads a state that was already damaged when it was kept. If the state's manifest does not
// report the damage, Upload must refuse the state. If the manifest reports it, Upload must upload the state as it is, and a
// reader of the copy must get an error. Prove must accept this copy, unless the copy's gzip data are damaged in the bucket.
func TestStateDamagedWhenKept(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, place string, env map[string]string) {
		l := open(t, place, env)
		f := probed(t, l)
		u, err := url.Parse(place)
		if err != nil {
			t.Fatal(err)
		}
		var data bytes.Buffer
		rows(100).WriteTo(&data)
		other := strings.Repeat("0", 64)
		for i, written := range []manifest.Manifest{
			{Bytes: int64(data.Len()), SHA256: other},
			{Bytes: int64(data.Len()) - 1, SHA256: other},
			{Bytes: int64(data.Len()) + 1, SHA256: other},
			{Bytes: int64(data.Len()), Blocks: &manifest.Blocks{Bytes: 128 << 10, SHA256: other}},
		} {
			src := loss(100, noon.Add(time.Duration(i)*time.Hour))
			src.Manifest.Bytes, src.Manifest.SHA256, src.Manifest.Blocks = written.Bytes, written.SHA256, written.Blocks
			if _, _, err := f.Upload(t.Context(), src); !errors.As(err, new(*remote.DamagedError)) {
				t.Errorf("manifest %d: damage that nobody knew of was uploaded: %v", i, err)
			}
			src.Manifest.Kept.Damaged = "its SHA-256 is another one"
			s := upload(t, f, src)
			m, err := l.Manifest(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			r := l.JSON(t.Context(), s, m)
			if _, err := io.Copy(io.Discard, r); !errors.As(err, new(*remote.DamagedError)) {
				t.Errorf("manifest %d: the state is read as whole: %v", i, err)
			}
			r.Close()
			if err := l.Prove(t.Context(), s); err != nil {
				t.Errorf("manifest %d: Prove: %v", i, err)
			}
			path, _, err := l.Download(t.Context(), s, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			compressed, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			replaceObject(t, u, env, cluster+s.URL[strings.LastIndex(s.URL, "/"):], compressed[:len(compressed)/2])
			if err := l.Prove(t.Context(), s); !errors.As(err, new(*remote.DamagedError)) {
				t.Errorf("manifest %d: further damage in the bucket: %v", i, err)
			}
		}
	})
}
