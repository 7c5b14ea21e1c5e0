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

// BenchmarkFirstCopy is the time from the start of the process to a durable file, against the table's COPY in binary to
// nothing, and other programs that read all of it.
func BenchmarkFirstCopy(b *testing.B) {
	n := rows(b)
	url := database(b, n)
	conn := connect(b, url)
	bin, err := pgserver.Bin()
	if err != nil {
		b.Fatal(err)
	}
	programs := map[string][]string{
		"pg_dump":     {program(bin, "pg_dump"), "--data-only", "--table=votes", "--file=" + os.DevNull, url},
		"row_to_json": {program(bin, "psql"), "--no-psqlrc", "--quiet", "--output=" + os.DevNull, "--command=COPY (SELECT row_to_json(v) FROM votes v) TO STDOUT", url},
		"python":      {python(), "-c", pythonExporter, url, filepath.Join(dir, "python.json")},
	}
	sum := make(map[string]time.Duration)
	var bytes int64
	for b.Loop() {
		begun := time.Now()
		if _, err := conn.PgConn().CopyTo(b.Context(), io.Discard, "COPY votes TO STDOUT (FORMAT binary)"); err != nil {
			b.Fatal(err)
		}
		sum["COPY"] += time.Since(begun)
		d := start(b, url)
		f := d.flushed("start")
		sum["capture"] += f.at.Sub(d.started)
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
			sum[name] += time.Since(begun)
		}
	}
	for name, took := range sum {
		b.ReportMetric(took.Seconds()/float64(b.N), name+"-s")
	}
	b.ReportMetric(float64(bytes), "file-bytes")
}

// program is where a client's program is: beside the server's, or in PATH; "" for nowhere.
func program(bin, name string) string {
	path := filepath.Join(bin, name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path, _ = exec.LookPath(name)
	return path
}

// python is a Python that has a driver for Postgres; "" for none.
func python() string {
	path, err := exec.LookPath("python3")
	if err != nil || exec.Command(path, "-c", "import psycopg2").Run() != nil {
		return ""
	}
	return path
}

// pythonExporter is what a script for the job looks like: read all, write all.
const pythonExporter = `
import json, sys, psycopg2, psycopg2.extras
db = psycopg2.connect(sys.argv[1])
cursor = db.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
cursor.execute("SELECT * FROM votes ORDER BY vote_id")
with open(sys.argv[2], "w") as f:
    json.dump(cursor.fetchall(), f, default=str)
`
