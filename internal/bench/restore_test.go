package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"capture/internal/pgserver"
)

// BenchmarkRestore measures how long `capture restore` takes for the whole table. The baseline is psql's \copy of the same
// rows. For the figure "merge", a tenth of the rows is missing and a tenth has changed, so capture copies all rows into a
// temporary table and compares them. CAPTURE_BENCH_BINARY is the path of another binary of capture, for example of an
// earlier commit. If CAPTURE_BENCH_BINARY is set, each iteration measures both binaries.
func BenchmarkRestore(b *testing.B) {
	n := tableRows(b)
	url := votesDatabase(b, n)
	conn := connect(b, url)
	bin, err := pgserver.Bin()
	if err != nil {
		b.Fatal(err)
	}
	path, err := binary()
	if err != nil {
		b.Fatal(err)
	}
	folder, err := os.MkdirTemp(dir, "restore-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(folder)
	file, copied := filepath.Join(folder, "feedback.json"), filepath.Join(folder, "votes.copy")
	psql := clientProgram(bin, "psql")
	runTimed(b, path, "snapshot", "--database-url="+url, "--output="+file)
	runTimed(b, psql, "--no-psqlrc", "--quiet", `--command=\copy votes TO `+copied, url)
	programs := map[string]string{"capture": path}
	if other := os.Getenv("CAPTURE_BENCH_BINARY"); other != "" {
		programs["other"] = other
	}
	took, memory := map[string]time.Duration{}, map[string]int64{}
	measure := func(name string, words ...string) {
		execSQL(b, conn, "CHECKPOINT")
		t, kB := runTimed(b, words...)
		took[name] += t
		memory[name] = max(memory[name], kB)
	}
	for b.Loop() {
		execSQL(b, conn, "TRUNCATE votes")
		measure("psql", psql, "--no-psqlrc", "--quiet", `--command=\copy votes FROM `+copied, url)
		for name, program := range programs {
			execSQL(b, conn, "TRUNCATE votes")
			measure(name, program, "restore", "--database-url="+url, file)
			execSQL(b, conn, "DELETE FROM votes WHERE vote_id % 10 = 3")
			execSQL(b, conn, "UPDATE votes SET comment = 'changed' WHERE vote_id % 10 = 7")
			execSQL(b, conn, "VACUUM (ANALYZE) votes")
			measure(name+"-merge", program, "restore", "--database-url="+url, "--on-conflict=overwrite", "--delete-extra", "--yes", file)
		}
	}
	for name, t := range took {
		b.ReportMetric(t.Seconds()/float64(b.N), name+"-s")
		b.ReportMetric(float64(memory[name])/1024, name+"-MB")
	}
}

// runTimed runs a program and returns how long it took, and its largest resident memory in kB.
func runTimed(b *testing.B, words ...string) (time.Duration, int64) {
	b.Helper()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "CAPTURE_KEEP=0")
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatal(fmt.Errorf("%s %s: %w\n%s", words[0], words[1], err, out))
	}
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return time.Since(begun), usage.Maxrss
}
