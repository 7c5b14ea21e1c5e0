package store_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"capture/store"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestKeepGeneration(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "feedback.json")
	f := open(t, path)
	v := votes(3, "kept").View()
	if _, err := f.KeepGeneration(t.Context(), store.Retention{Count: 3}); err == nil || !strings.Contains(err.Error(), "nothing new") {
		t.Errorf("before the first Write the error is %v", err)
	}
	m := write(t, f, v, store.ReasonInterval).Manifest
	if got, err := f.KeepGeneration(t.Context(), store.Retention{}); got != "" || err != nil || len(names(t, dir)) != 3 {
		t.Errorf("with nothing to keep: %q, %v: %q", got, err, names(t, dir))
	}

	touch := func(name string) string {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	hoursAgo := func(n int) string { return m.WrittenAt.Add(-time.Duration(n) * time.Hour).Format("20060102T1504Z") }
	foreign := []string{touch("feedback-old.json.gz"), touch("feedback-20260230T1600Z.json.gz"), touch("feedback-20200101T0000Z.json"), touch("feedback-20200101T0000Z.json.gz.bak"),
		touch("myfeedback-20200101T0000Z.json.gz"), touch("feedback-2-20200101T0000Z.json.gz")}
	if err := os.Mkdir(filepath.Join(dir, "feedback-20190101T0000Z.json.gz"), 0o755); err != nil {
		t.Fatal(err)
	}
	foreign = append(foreign, "feedback-20190101T0000Z.json.gz")
	var own []string
	for n := 1; n <= 30; n++ {
		own = append(own, touch("feedback-"+hoursAgo(n)+".json.gz"), touch("feedback-"+hoursAgo(n)+".manifest.json"))
	}
	touch("feedback-" + hoursAgo(40) + ".manifest.json") // without its data
	touch("feedback-" + hoursAgo(1) + ".json.gz.tmp")

	check := func(k store.Retention, hours int) {
		t.Helper()
		made, err := f.KeepGeneration(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		want := append([]string{"feedback.json", "feedback.json.lock", "feedback.manifest.json", filepath.Base(made), "feedback-" + hoursAgo(0) + ".manifest.json"}, foreign...)
		want = append(want, own[:2*hours]...)
		slices.Sort(want)
		if got := names(t, dir); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v kept\n%q, not\n%q", k, got, want)
		}
	}
	check(store.Retention{Count: 28}, 27)
	check(store.Retention{Count: 100, Days: 1}, 24)
	check(store.Retention{Count: 3, Days: 1}, 2)

	zipped, err := os.Open(filepath.Join(dir, "feedback-"+hoursAgo(0)+".json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer zipped.Close()
	z, err := gzip.NewReader(zipped)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(z); err != nil || !bytes.Equal(text, content(t, v)) {
		t.Errorf("the generation holds %q, %v", text, err)
	}
	kept, err := store.ReadManifest(filepath.Join(dir, "feedback-"+hoursAgo(0)+".json"))
	if err != nil || kept.SHA256 != m.SHA256 || kept.Rows != 3 {
		t.Errorf("its manifest is %+v, %v", kept, err)
	}
}

func TestKeepGenerationFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "feedback.json")
	f := open(t, path)
	write(t, f, votes(3, "kept").View(), store.ReasonInterval)
	before := fmt.Sprint(names(t, dir))

	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := f.KeepGeneration(ended, store.Retention{Count: 3}); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context the error is %v", err)
	}
	if err := os.WriteFile(path, []byte("[]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.KeepGeneration(t.Context(), store.Retention{Count: 3}); err == nil || !strings.Contains(err.Error(), "another program changed it") {
		t.Errorf("of a changed file the error is %v", err)
	}
	if got := fmt.Sprint(names(t, dir)); got != before {
		t.Errorf("left over: %s", got)
	}
}
