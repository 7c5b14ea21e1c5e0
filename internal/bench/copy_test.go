package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"capture/internal/pgserver"
)

// BenchmarkFirstCopy measures the time from the start of the process until the file is durable. The baseline is a COPY in
// binary format whose output is discarded. BenchmarkFirstCopy also measures other programs that read the whole table.
func BenchmarkFirstCopy(b *testing.B) {
	n := tableRows(b)
	url := votesDatabase(b, n)
	conn := connect(b, url)
	bin, err := pgserver.Bin()
	if err != nil {
		b.Fatal(err)
	}
	programs := map[string][]string{
		"pg_dump":     {clientProgram(bin, "pg_dump"), "--data-only", "--table=votes", "--file=" + os.DevNull, url},
		"row_to_json": {clientProgram(bin, "psql"), "--no-psqlrc", "--quiet", "--output=" + os.DevNull, "--command=COPY (SELECT row_to_json(v) FROM votes v) TO STDOUT", url},
	}
	took := make(map[string][]time.Duration)
	var bytes int64
	for b.Loop() {
		begun := time.Now()
		if _, err := conn.PgConn().CopyTo(b.Context(), io.Discard, "COPY votes TO STDOUT (FORMAT binary)"); err != nil {
			b.Fatal(err)
		}
		took["COPY"] = append(took["COPY"], time.Since(begun))
		d := startDaemon(b, url)
		f := d.waitFlush("start")
		took["capture"] = append(took["capture"], f.at.Sub(d.started))
		bytes = f.Bytes
		d.stop()
		for name, words := range programs {
			if words[0] == "" {
				continue
			}
			begun := time.Now()
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				b.Fatalf("%s: %v\n%s", name, err, out)
			}
			took[name] = append(took[name], time.Since(begun))
		}
		if !pythonMeasured {
			pythonMeasured = true
			took["python"] = measurePython(b, url)
		}
	}
	for name, all := range took {
		var sum time.Duration
		for _, t := range all {
			sum += t
		}
		if len(all) > 0 {
			b.ReportMetric(sum.Seconds()/float64(len(all)), name+"-s")
		}
	}
	b.ReportMetric(float64(bytes), "file-bytes")
}

// clientProgram returns the path of a client program in the folder bin or in PATH, or "" if the program is not installed.
func clientProgram(bin, name string) string {
	path := filepath.Join(bin, name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path, _ = exec.LookPath(name)
	return path
}

// pythonMeasured reports whether pythonExporter has run. The script runs only once, because it needs minutes and 10 GB of
// memory for a million votes.
var pythonMeasured bool

// measurePython returns the time that pythonExporter takes. It returns nil if no suitable Python is installed, or if the
// script fails, for example for lack of memory.
func measurePython(b *testing.B, url string) []time.Duration {
	b.Helper()
	path := findPython()
	if path == "" {
		b.Log("skipping Python: none with psycopg2 is installed")
		return nil
	}
	file := filepath.Join(dir, "python.json")
	defer os.Remove(file)
	begun := time.Now()
	if out, err := exec.Command(path, "-c", pythonExporter, url, file).CombinedOutput(); err != nil {
		b.Logf("skipping Python: %v\n%s", err, out)
		return nil
	}
	return []time.Duration{time.Since(begun)}
}

// findPython returns a Python in PATH or /usr/bin that has a driver for Postgres, or "" if there is none.
func findPython() string {
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import psycopg2").Run() == nil {
			return name
		}
	}
	return ""
}

// pythonExporter is a typical script that exports a table.
const pythonExporter = `
import json, sys, psycopg2, psycopg2.extras
db = psycopg2.connect(sys.argv[1])
cursor = db.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
cursor.execute("SELECT * FROM votes ORDER BY vote_id")
with open(sys.argv[2], "w") as f:
    json.dump(cursor.fetchall(), f, default=str)
`
