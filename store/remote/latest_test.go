package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"capture/internal/objectserver"
	"capture/store/remote"
)

// latest returns the name of the state that latest.json names.
func latest(t *testing.T, place string, env map[string]string) string {
	t.Helper()
	name, text := cluster+"/latest.json", ""
	u, _ := url.Parse(place)
	switch u.Scheme {
	case "file":
		data, err := os.ReadFile(filepath.Join(u.Path, name))
		if err != nil {
			t.Fatal(err)
		}
		text = string(data)
	default:
		data, err := io.ReadAll(rawObject(t, u, env, name))
		if err != nil {
			t.Fatal(err)
		}
		text = string(data)
	}
	var content struct{ State string }
	if err := json.Unmarshal([]byte(text), &content); err != nil {
		t.Fatalf("latest.json is %q: %v", text, err)
	}
	return content.State
}

func TestLatestNeverGoesBack(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, place string, env map[string]string) {
		f := probed(t, open(t, place, env))
		for i, step := range []struct {
			lsn      string
			timeline int
			minute   int
			moves    bool
		}{
			{"0/100", 1, 0, true},
			{"0/200", 1, 1, true},
			{"0/1FF", 1, 2, false}, // the state of a capture that was paused
			{"0/200", 1, 3, true},  // a regular upload without a change
			{"0/50", 2, 4, true},   // the database was restored to an earlier point in time
			{"0/300", 1, 5, false}, // a capture that still follows the old primary
			{"0/60", 0, 6, true},   // the database role may not read the timeline
			{"0/5F", 0, 7, false},
		} {
			s, m, err := f.Upload(t.Context(), source(i, step.lsn, step.timeline, noon.Add(time.Duration(step.minute)*time.Minute)))
			if err != nil {
				t.Fatal(err)
			}
			moved, err := f.MoveLatest(t.Context(), s, m)
			if err != nil || moved != step.moves {
				t.Errorf("step %d: latest.json moved: %t (%v), want %t", i, moved, err, step.moves)
			}
			if named := strings.HasSuffix(s.URL, latest(t, place, env)); named != step.moves {
				t.Errorf("step %d: latest.json names %s", i, latest(t, place, env))
			}
		}
	})
}

// TestLatestRace lets two captures move latest.json at the same time. In the end, latest.json must name the state with the
// highest position.
func TestLatestRace(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, place string, env map[string]string) {
		var writers sync.WaitGroup
		const each = 8
		for writer := range 2 {
			f := probed(t, open(t, place, env))
			writers.Go(func() {
				for i := range each {
					n := 2*i + writer
					s, m, err := f.Upload(t.Context(), source(n, fmt.Sprintf("0/%X", 0x1000+n), 1, noon))
					if err == nil {
						_, err = f.MoveLatest(t.Context(), s, m)
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		writers.Wait()
		if got, want := latest(t, place, env), fmt.Sprintf("-%016X-%d.json.gz", 0x1000+2*each-1, 2*each-1); !strings.HasSuffix(got, want) {
			t.Errorf("latest.json names %s, want …%s", got, want)
		}
		if n := len(states(t, open(t, place, env).Folder(cluster))); n != 2*each {
			t.Errorf("%d states, want %d", n, 2*each)
		}
	})
}

func TestNewest(t *testing.T) {
	t.Parallel()
	type step struct {
		lsn      string
		timeline int
		minute   int
		want     int // number of the step whose state is the newest
	}
	for name, steps := range map[string][]step{
		"a paused capture, a restore, and a role that may not see the timeline": {
			{"0/100", 1, 0, 0}, {"0/200", 1, 1, 1}, {"0/150", 1, 2, 1}, {"0/180", 2, 3, 3}, {"0/190", 2, 4, 4}, {"0/1A0", 0, 5, 1}},
		"a capture still follows the old server": {{"0/200", 1, 0, 0}, {"0/180", 2, 1, 1}, {"0/900", 1, 2, 1}, {"0/950", 1, 3, 1}, {"0/1A0", 2, 4, 4}},
		"the clock goes back during a restore":   {{"0/200", 1, 60, 0}, {"0/180", 2, 0, 1}, {"0/190", 2, 1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			place := "file://" + t.TempDir()
			l := open(t, place, nil)
			f := probed(t, l)
			if _, _, err := l.Newest(t.Context(), nil); !remote.IsMissing(err) {
				t.Errorf("no states: %v", err)
			}
			for i, step := range steps {
				upload(t, f, source(i, step.lsn, step.timeline, noon.Add(time.Duration(step.minute)*time.Minute)))
				for _, l := range []*remote.Location{l, open(t, place+"/"+cluster, nil)} {
					clusters, err := l.Clusters(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					s, m, err := l.Newest(t.Context(), clusters[0].States)
					if err != nil || m.Rows != s.Rows || s.Rows != step.want {
						t.Errorf("after step %d the newest state at %s is that of step %d with %d rows (%v), want %d", i, l, s.Rows, m.Rows, err, step.want)
					}
				}
			}
		})
	}
}

func TestEqualNames(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, place string, env map[string]string) {
		f := probed(t, open(t, place, env))
		first := upload(t, f, source(2, "0/100", 1, noon))
		other := source(2, "0/100", 1, noon)
		other.Data = strings.NewReader("[\n{},\n{}\n]\n")
		second := upload(t, f, other)
		if !second.Time.Equal(noon.Add(time.Second)) {
			t.Errorf("another state of the same second has the time %s", second.Time)
		}
		same := source(2, "0/100", 1, noon)
		same.Manifest.SHA256, same.Manifest.Bytes = manifestOf(t, f, first)
		if again := upload(t, f, same); again.URL != first.URL {
			t.Errorf("the same state again became %s", again.URL)
		}
		if list := states(t, f); len(list) != 2 {
			t.Errorf("the states are %s", names(list))
		}
	})
}

// TestFindUpload checks that FindUpload finds a state under each name that Upload can give it, and never returns another
// state.
func TestFindUpload(t *testing.T) {
	t.Parallel()
	f := probed(t, open(t, "file://"+t.TempDir(), nil))
	const names = 20
	for i := range names { // all states have the same second and position, so Upload gives each of them another second
		src := loss(2, noon)
		src.Data = strings.NewReader(fmt.Sprintf("[\n{%d},\n{}\n]\n", i))
		s := upload(t, f, src)
		if found := remote.FindUpload([]remote.State{s}, src.Manifest, src.Time); found == nil || found.URL != s.URL {
			t.Errorf("%s is not found", s.URL)
		}
	}
	if _, _, err := f.Upload(t.Context(), loss(2, noon)); err == nil || !strings.Contains(err.Error(), "20 names") {
		t.Fatalf("a state got another name: %v", err)
	}
	list := states(t, f)
	if s := remote.FindUpload(list, loss(2, noon).Manifest, noon); s == nil || !s.Time.Equal(noon) {
		t.Errorf("of %d states, %+v is found", len(list), s)
	}
	for what, src := range map[string]remote.Source{
		"20 seconds before": loss(2, noon.Add(-time.Second)), "afterwards": loss(2, noon.Add(names*time.Second)), "more rows": loss(3, noon), "no loss": source(2, "0/100", 1, noon),
	} {
		if s := remote.FindUpload(list[:1], src.Manifest, src.Time); s != nil {
			t.Errorf("%s: %s is found", what, s.URL)
		}
	}
	other := loss(2, noon)
	other.Manifest.LSN = "0/101"
	if s := remote.FindUpload(list, other.Manifest, noon); s != nil {
		t.Errorf("%s is found for another position", s.URL)
	}
}

func manifestOf(t *testing.T, f *remote.Folder, s remote.State) (sum string, bytes int64) {
	t.Helper()
	m, err := f.Manifest(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return m.SHA256, m.Bytes
}

func TestStatesShown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := probed(t, open(t, "file://"+dir, nil))
	s := upload(t, f, source(5, "0/100", 1, noon))
	// An object is not a state if it lacks a manifest, or if its name is not exactly that of a state.
	for _, name := range []string{
		"feedback-20261126T130000Z-0000000000000100-5.json.gz", "feedback-20261126T120000Z-0000000000000100-05.json.gz", "feedback-x.json.gz",
		"feedback-20261126T120000Z-0000000000000100-05.manifest.json", "probe", ".feedback-20261126T120000Z-0000000000000100-5.json.gz-1.part",
	} {
		if err := os.WriteFile(filepath.Join(dir, cluster, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if list := states(t, f); len(list) != 1 || list[0].URL != s.URL || list[0].Rows != 5 || !list[0].Time.Equal(noon) || list[0].LSN != 0x100 {
		t.Errorf("states are %+v", list)
	}
	if _, err := open(t, "file://"+filepath.Join(dir, "missing"), nil).Clusters(t.Context()); !remote.IsMissing(err) {
		t.Errorf("a folder that is missing: %v", err)
	}
}

func TestAcknowledge(t *testing.T) {
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			f := probed(t, open(t, b.URL, b.Env))
			s := upload(t, f, loss(40, noon))
			for range 2 { // the second call stands for an acknowledgement on another machine
				if err := f.Acknowledge(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			if list := states(t, f); len(list) != 1 || !list[0].Loss || !list[0].Acknowledged {
				t.Errorf("states are %+v", list)
			}
			if err := f.Drop(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if list := states(t, f); len(list) != 0 {
				t.Errorf("after Drop there is %s", names(list))
			}
			if err := f.Drop(t.Context(), s); err != nil {
				t.Errorf("dropping it again: %v", err)
			}
		})
	}
}

// TestLockedFolder checks that a write waits while another process has the lock of the folder, but at most until its context
// ends. If the other process keeps the lock, the error must name the lock file.
func TestLockedFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, "file://"+dir, nil)
	f := l.Folder(cluster)
	if err := os.Mkdir(filepath.Join(dir, cluster), 0o750); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(dir, cluster, ".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	probed := make(chan error)
	go func() {
		_, err := f.Probe(ctx)
		probed <- err
	}()
	select {
	case err := <-probed:
		t.Fatalf("it did not wait for the lock: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	cancel()
	if err := <-probed; !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: %v", err)
	}
	l.Patience = time.Millisecond
	if _, err := f.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "another process holds it") || !strings.Contains(err.Error(), lock.Name()) {
		t.Errorf("while the lock is held, the error is %v", err)
	}
	l.Patience = 0
	go func() {
		_, err := f.Probe(t.Context())
		probed <- err
	}()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := <-probed; err != nil {
		t.Errorf("after the lock was released: %v", err)
	}
}
