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

// environment describes the machine and the run, because the figures depend on both.
type environment struct {
	begun    time.Time
	load     string // load average over one minute, at the start
	loadEnd  string // load average over one minute, at the end
	hardware string
	system   string
	versions string
	table    string
	runs     int
}

func describeEnvironment() *environment {
	e := &environment{begun: time.Now(), load: loadAverage()}
	processor := "a processor"
	for _, l := range strings.Split(readFile("/proc/cpuinfo"), "\n") {
		if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			processor = strings.TrimSpace(value)
			break
		}
	}
	memory := ""
	for _, l := range strings.Split(readFile("/proc/meminfo"), "\n") {
		var kB int64
		if _, err := fmt.Sscanf(l, "MemTotal: %d", &kB); err == nil {
			memory = fmt.Sprintf(", %d GB of memory", (kB+1<<19)>>20)
		}
	}
	e.hardware = fmt.Sprintf("%d processors (%s)%s", runtime.NumCPU(), processor, memory)
	e.system = fmt.Sprintf("%s %s, files on %s", runtime.GOOS, cmp.Or(commandOutput("uname", "-r"), "?"), cmp.Or(lastWord(commandOutput("df", "--output=fstype", os.TempDir())), "?"))
	postgres := "PostgreSQL ?"
	if bin, err := pgserver.Bin(); err == nil {
		postgres = commandOutput(filepath.Join(bin, "postgres"), "--version")
	}
	e.versions = fmt.Sprintf("capture %s, %s, %s", cmp.Or(commandOutput("git", "describe", "--tags", "--always", "--dirty"), "?"), runtime.Version(), postgres)
	return e
}

// addResults adds the facts that are known only after the benchmarks.
func (e *environment) addResults(found results, runs int) {
	e.loadEnd, e.runs = loadAverage(), runs
	if bytes := found["FirstCopy"]["file-bytes"]; len(bytes) > 0 {
		e.table = fmt.Sprintf("%s votes, feedback.json of %s MB", formatNumber(requestedRows()), formatNumber(median(bytes)/1e6))
	}
}

func requestedRows() float64 {
	var n float64 = 100_000
	_, _ = fmt.Sscan(os.Getenv("CAPTURE_BENCH_ROWS"), &n) // ignore an error, because the benchmarks fail for a value that is not a number
	return n
}

func (e *environment) String() string {
	return fmt.Sprintf(`Taken on %s in %s, medians of %d runs (least–most). %s.
%s; %s; %s. Load average %s at the start, %s at the end.
`, e.begun.UTC().Format("2006-01-02 15:04 UTC"), time.Since(e.begun).Round(time.Second), e.runs, cmp.Or(e.table, "Not everything was measured"),
		e.hardware, e.system, e.versions, e.load, e.loadEnd)
}

func loadAverage() string {
	load, _, _ := strings.Cut(readFile("/proc/loadavg"), " ")
	return cmp.Or(load, "?")
}

func readFile(path string) string {
	content, _ := os.ReadFile(path) // "" if it is missing
	return string(content)
}

func lastWord(text string) string { return text[strings.LastIndexAny(text, " \n")+1:] }

// commandOutput returns the output of a program, or "" if it fails.
func commandOutput(program string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
