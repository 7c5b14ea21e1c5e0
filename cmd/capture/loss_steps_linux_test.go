package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"capture/store/manifest"
)

// A killStep tells when strace kills capture: once a thread makes its nth call of one system call. strace counts the calls
// on the files of a Write or, if compressing is true, on the files of the compression after the Write. If call is "", strace
// kills nothing.
type killStep struct {
	call        string
	n           int
	compressing bool // whether only the files of the compression are traced
}

// killCalls are the system calls with which capture opens, patches, syncs, links, renames and removes files.
var killCalls = []string{"openat", "fsync", "linkat", "renameat", "renameat2", "unlinkat", "pwrite64"}

// drawStep returns a random step that occurs in most rounds. capture patches only large files, so drawStep chooses renameat2
// or pwrite64 only if the file is large.
func drawStep(r *rand.Rand, large bool) killStep {
	step := killStep{compressing: r.IntN(4) == 0}
	most := map[string]int{"openat": 6, "fsync": 5, "linkat": 1, "renameat": 4, "unlinkat": 4}
	if large {
		most["renameat2"], most["pwrite64"] = 1, 4
	}
	if step.compressing {
		most = map[string]int{"openat": 2, "fsync": 1, "renameat": 1, "unlinkat": 2}
	}
	draw := 0
	for _, call := range killCalls {
		for n := 1; n <= most[call]; n++ {
			if draw++; r.IntN(draw) == 0 {
				step.call, step.n = call, n
			}
		}
	}
	return step
}

func (s killStep) String() string {
	if s.call == "" {
		return fmt.Sprintf("no kill, compressing %t", s.compressing)
	}
	if s.compressing {
		return fmt.Sprintf("%s %d of compressing", s.call, s.n)
	}
	return fmt.Sprintf("%s %d", s.call, s.n)
}

// options returns the options with which strace kills a process at the step. dataPath is the path of feedback.json.
// keptPath is the path of its kept state without the suffix.
func (s killStep) options(log, dataPath, keptPath string) []string {
	options := []string{"-o", log, "-e", "trace=" + strings.Join(killCalls, ",")}
	if s.call != "" {
		options = append(options, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", s.call, s.n))
	}
	hidden := filepath.Join(filepath.Dir(keptPath), "."+filepath.Base(keptPath))
	paths := []string{hidden + ".json.gz.tmp", keptPath + ".json.gz", keptPath + ".json"}
	if !s.compressing {
		m := manifest.Path(dataPath)
		paths = []string{dataPath, dataPath + ".tmp", m, m + ".tmp", filepath.Dir(dataPath), keptPath + ".json", keptPath + ".manifest.json", hidden + ".manifest.json.tmp"}
	}
	for _, p := range paths {
		options = append(options, "-P", p)
	}
	return options
}

// readTrace reads strace's output. For each system call, it stores the largest number of calls by one thread in r.made. It
// stores the call at which strace killed capture in r.killed.
func (r *lossRound) readTrace(log string) {
	trace, err := os.ReadFile(log)
	if err != nil {
		r.t.Fatal(err)
	}
	r.made = map[string]int{}
	byThread := map[string]int{}
	for line := range strings.Lines(string(trace)) {
		thread, text, _ := strings.Cut(line, " ")
		text = strings.TrimSpace(text)
		name, _, isCall := strings.Cut(text, "(")
		if !isCall || !slices.Contains(killCalls, name) {
			continue
		}
		byThread[thread+name]++
		r.made[name] = max(r.made[name], byThread[thread+name])
		if name == r.step.call && byThread[thread+name] == r.step.n {
			r.killed = text
		}
	}
	if !strings.Contains(string(trace), "killed by SIGKILL") {
		r.killed = ""
	}
}
