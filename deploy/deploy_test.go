package deploy_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = ".."

var metricName = regexp.MustCompile(`\bcapture_[a-z0-9_]+\b`)

// parseSources parses the module's Go files except tests.
func parseSources(t *testing.T) []*ast.File {
	t.Helper()
	var files []*ast.File
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "dist") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func importPaths(t *testing.T, f *ast.File) []string {
	t.Helper()
	var paths []string
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// metricNames returns the names of the metrics in the code. In files that import the Prometheus package, every string
// literal that looks like the name of a metric counts as one.
func metricNames(t *testing.T) []string {
	t.Helper()
	names := map[string]bool{}
	for _, f := range parseSources(t) {
		if !slices.Contains(importPaths(t, f), "github.com/prometheus/client_golang/prometheus") {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			if text, err := strconv.Unquote(lit.Value); err == nil && metricName.FindString(text) == text && text != "" {
				names[text] = true
			}
			return true
		})
	}
	if len(names) < 10 {
		t.Fatalf("found only %d metrics in the code: %v", len(names), names)
	}
	return slices.Sorted(maps.Keys(names))
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// knownSeries reports whether a series in a query belongs to one of the metrics. The three series of a histogram end in
// _bucket, _sum and _count.
func knownSeries(names []string, series string) bool {
	if slices.Contains(names, series) {
		return true
	}
	for _, kind := range []string{"_bucket", "_sum", "_count"} {
		if name, ok := strings.CutSuffix(series, kind); ok && strings.HasSuffix(name, "_seconds") && slices.Contains(names, name) {
			return true
		}
	}
	return false
}

func TestRulesAndDashboardUseMetricsThatExist(t *testing.T) {
	names := metricNames(t)
	for _, path := range []string{"deploy/prometheus-rules.yml", "deploy/grafana-dashboard.json"} {
		found := metricName.FindAllString(readFile(t, path), -1)
		if len(found) < 10 {
			t.Errorf("%s: contains only %d metrics", path, len(found))
		}
		for _, series := range found {
			if !knownSeries(names, series) {
				t.Errorf("%s: the code has no metric %s", path, series)
			}
		}
	}
}

func TestDashboardIsJSON(t *testing.T) {
	var dashboard struct {
		Title  string
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "deploy/grafana-dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q has a duplicate id, no title or no query", p.ID, p.Title)
		}
		ids[p.ID] = true
	}
	if dashboard.Title == "" || len(ids) == 0 {
		t.Error("no title or no panels")
	}
}

// TestMetricsAreDocumented checks that the table of metrics in the documentation lists exactly the metrics in the code.
func TestMetricsAreDocumented(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `(capture_[a-z0-9_]+)")
	documented := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(readFile(t, "docs/operations.md"), -1) {
		if documented[m[1]] {
			t.Errorf("docs/operations.md: %s is listed twice", m[1])
		}
		documented[m[1]] = true
	}
	for _, name := range metricNames(t) {
		if !documented[name] {
			t.Errorf("docs/operations.md: %s is missing in the table of metrics", name)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("docs/operations.md: the code has no metric %s", name)
	}
}

// TestAlertsAreDocumented checks that the documentation has a section for each alert.
func TestAlertsAreDocumented(t *testing.T) {
	docs := readFile(t, "docs/operations.md")
	alerts := regexp.MustCompile(`(?m)^ *- alert: (\w+)$`).FindAllStringSubmatch(readFile(t, "deploy/prometheus-rules.yml"), -1)
	if len(alerts) == 0 {
		t.Fatal("no alerts found")
	}
	for _, a := range alerts {
		if !strings.Contains(docs, "\n### "+a[1]+"\n") {
			t.Errorf("docs/operations.md: no section %s", a[1])
		}
	}
	for _, heading := range regexp.MustCompile(`(?m)^### (Capture\w+)$`).FindAllStringSubmatch(docs, -1) {
		if !slices.ContainsFunc(alerts, func(a []string) bool { return a[1] == heading[1] }) {
			t.Errorf("docs/operations.md: a section for %s, but there is no such alert", heading[1])
		}
	}
}

// TestImageCompilesDependenciesFirst checks the Dockerfile's list of imported packages, which Docker compiles before it
// copies the source. If the list lacks a package, Docker compiles this package again after each change of the source.
func TestImageCompilesDependenciesFirst(t *testing.T) {
	_, list, ok := strings.Cut(readFile(t, "Dockerfile"), "RUN go build \\\n")
	if !ok {
		t.Fatal("no such step in the Dockerfile")
	}
	list, _, _ = strings.Cut(list, "\n\n")
	compiled := strings.Fields(strings.ReplaceAll(list, "\\\n", "\n"))
	used := map[string]bool{"net/http": true}
	for _, f := range parseSources(t) {
		for _, path := range importPaths(t, f) {
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
				used[path] = true
			}
		}
	}
	want := slices.Sorted(maps.Keys(used))
	slices.Sort(compiled)
	if !slices.Equal(compiled, want) {
		t.Errorf("the Dockerfile compiles\n%s\nthe code imports\n%s", strings.Join(compiled, "\n"), strings.Join(want, "\n"))
	}
}

// TestDashboardShowsWhatAlertsUse checks that each metric in an alert has a panel on the dashboard.
func TestDashboardShowsWhatAlertsUse(t *testing.T) {
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal([]byte(readFile(t, "deploy/grafana-dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			for _, series := range metricName.FindAllString(target.Expr, -1) {
				shown[series] = true
			}
		}
	}
	expressions := regexp.MustCompile(`(?m)^ +expr: (?s:.*?)\n +(?:for|labels):`).FindAllString(readFile(t, "deploy/prometheus-rules.yml"), -1)
	if len(expressions) < 15 {
		t.Fatalf("found only %d expressions", len(expressions))
	}
	for _, expr := range expressions {
		for _, series := range metricName.FindAllString(expr, -1) {
			if !shown[series] {
				t.Errorf("the dashboard has no panel with %s, which an alert uses", series)
			}
		}
	}
}
