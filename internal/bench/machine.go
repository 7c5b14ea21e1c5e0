package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"capture/internal/pgserver"
)

// facts are what figures depend on.
type facts struct {
	begun    time.Time
	load     string // average over a minute, at the start
	loadEnd  string
	hardware string
	system   string
	versions string
	table    string
	runs     int
}

// machine looks at where this runs.
func machine() *facts {
	m := &facts{begun: time.Now(), load: loadAverage()}
	processor := "a processor"
	for _, l := range strings.Split(read("/proc/cpuinfo"), "\n") {
		if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			processor = strings.TrimSpace(value)
			break
		}
	}
	memory := ""
	for _, l := range strings.Split(read("/proc/meminfo"), "\n") {
		var kB int64
		if _, err := fmt.Sscanf(l, "MemTotal: %d", &kB); err == nil {
			memory = fmt.Sprintf(", %d GB of memory", (kB+1<<19)>>20)
		}
	}
	m.hardware = fmt.Sprintf("%d processors (%s)%s", runtime.NumCPU(), processor, memory)
	m.system = fmt.Sprintf("%s %s, files on %s", runtime.GOOS, cmp.Or(said("uname", "-r"), "?"), cmp.Or(lastWord(said("df", "--output=fstype", os.TempDir())), "?"))
	postgres := "PostgreSQL ?"
	if bin, err := pgserver.Bin(); err == nil {
		postgres = said(filepath.Join(bin, "postgres"), "--version")
	}
	m.versions = fmt.Sprintf("capture %s, %s, %s", cmp.Or(said("git", "describe", "--tags", "--always", "--dirty"), "?"), runtime.Version(), postgres)
	return m
}

// finish adds what is known at the end.
func (m *facts) finish(found results, runs int) {
	m.loadEnd, m.runs = loadAverage(), runs
	if bytes := found["FirstCopy"]["file-bytes"]; len(bytes) > 0 {
		m.table = fmt.Sprintf("%s votes, feedback.json of %s MB", number(rowsAsked()), number(median(bytes)/1e6))
	}
}

func rowsAsked() float64 {
	var n float64 = 100_000
	_, _ = fmt.Sscan(os.Getenv("CAPTURE_BENCH_ROWS"), &n) // the benchmarks refuse what is no number
	return n
}

func (m *facts) String() string {
	return fmt.Sprintf(`Taken on %s in %s, medians of %d runs (least–most). %s.
%s; %s; %s. Load average %s at the start, %s at the end.
`, m.begun.UTC().Format("2006-01-02 15:04 UTC"), time.Since(m.begun).Round(time.Second), m.runs, cmp.Or(m.table, "Not all was measured"),
		m.hardware, m.system, m.versions, m.load, m.loadEnd)
}

func loadAverage() string {
	load, _, _ := strings.Cut(read("/proc/loadavg"), " ")
	return cmp.Or(load, "?")
}

func read(path string) string {
	content, _ := os.ReadFile(path) // what is missing is not known
	return string(content)
}

func lastWord(text string) string { return text[strings.LastIndexAny(text, " \n")+1:] }

// said is a program's answer; "" where it gives none.
func said(program string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
