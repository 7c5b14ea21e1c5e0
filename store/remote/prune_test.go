package remote_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"capture/internal/objectserver"
	"capture/store/remote"
	"capture/store/retention"
)

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
			old := upload(t, f, source(9, "0/900", 1, now.Add(-40*time.Hour))) // this state has the highest position, so latest.json continues to name it
			for i := range 6 {
				upload(t, f, source(i, "0/100", 1, now.Add(-time.Duration(i)*20*time.Minute)))
			}
			upload(t, f, loss(40, now.Add(-30*time.Hour)))
			if kind == "file" {
				age(t, filepath.Join(dir, cluster), time.Hour)
			}
			// The time that Prune gets is an hour behind the clock of a real service. Prune must go by the service's clock.
			removed, err := f.Prune(t.Context(), retention.Policy{Hours: 1}, now.Add(-ahead).Add(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			// The policy covers only the hour from 12:00 to 13:00. Only the newest of the six states belongs to this hour, so
			// Prune removes the other five. The state that latest.json names and the state before a loss stay, too.
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

// datesAnHourAhead forwards requests, and sets the Date of each response an hour ahead. By this clock, all objects are an
// hour old, so Prune may remove them.
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

// age makes the files in a folder look older. It sets their modification times to the present time minus the given duration.
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

// TestPruneWithWrongClock checks that a capture whose clock is a day ahead does not remove a state that another capture has
// just uploaded, even if latest.json does not name this state yet.
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
		// Although the state with the wrong time has the latest time, it is not the newest, because its position is lower.
		if s, _, err := f.Newest(t.Context(), states(t, f)); err != nil || s.URL == ahead.URL {
			t.Errorf("the newest is %s (%v)", s.URL, err)
		}
	})
}

// TestPruneKeepsGoodValues checks that the states before the first and the last loss of values stay. A later state of the
// same day has more rows, but may have the ruined values. The state before a repair need not stay.
func TestPruneKeepsGoodValues(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := probed(t, open(t, "file://"+dir, nil))
	now := noon.Add(48 * time.Hour)
	upload(t, f, source(9, "0/900", 1, now))
	ruined := func(rows int, at time.Time) remote.Source {
		src := loss(rows, at)
		src.Manifest.Kept.Loss.RowsChanged = rows
		return src
	}
	good := upload(t, f, ruined(40, now.Add(-5*time.Hour)))
	upload(t, f, ruined(41, now.Add(-4*time.Hour)))
	repair := ruined(42, now.Add(-3*time.Hour))
	repair.Manifest.Kept.Loss.RepairOf = now.Add(-5 * time.Hour)
	upload(t, f, repair)
	upload(t, f, loss(43, now.Add(-2*time.Hour)))
	age(t, filepath.Join(dir, cluster), time.Hour)
	prune := func(want ...int) {
		t.Helper()
		if _, err := f.Prune(t.Context(), retention.Policy{Hours: 1}, now); err != nil {
			t.Fatal(err)
		}
		var rows []int
		for _, s := range states(t, f) {
			rows = append(rows, s.Rows)
		}
		if slices.Sort(rows); !slices.Equal(rows, want) {
			t.Errorf("the states with these row counts are left: %d, want %d", rows, want)
		}
	}
	prune(9, 40, 41, 43)
	if err := f.Acknowledge(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	prune(9, 41, 43)
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
		if !strings.Contains(name, "T15") { // the object of 15:00 is new, because its upload still runs
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
