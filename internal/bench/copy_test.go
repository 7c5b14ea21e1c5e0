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
	}
	took := make(map[string][]time.Duration)
	var bytes int64
	for b.Loop() {
		begun := time.Now()
		if _, err := conn.PgConn().CopyTo(b.Context(), io.Discard, "COPY votes TO STDOUT (FORMAT binary)"); err != nil {
			b.Fatal(err)
		}
		took["COPY"] = append(took["COPY"], time.Since(begun))
		d := start(b, url)
		f := d.flushed("start")
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
		if !exported {
			exported = true
			took["python"] = pythonExport(b, url)
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

// program is where a client's program is: beside the server's, or in PATH; "" for nowhere.
func program(bin, name string) string {
	path := filepath.Join(bin, name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path, _ = exec.LookPath(name)
	return path
}

// exported says that the exporter in Python had its turn. It has one in all the runs, since a million votes take it
// minutes, and 10 GB of memory.
var exported bool

// pythonExport is how long the exporter takes; nothing where there is no Python for it or it fails, for want of memory.
func pythonExport(b *testing.B, url string) []time.Duration {
	b.Helper()
	path := python()
	if path == "" {
		b.Log("python is left out: there is none with psycopg2")
		return nil
	}
	file := filepath.Join(dir, "python.json")
	defer os.Remove(file)
	begun := time.Now()
	if out, err := exec.Command(path, "-c", pythonExporter, url, file).CombinedOutput(); err != nil {
		b.Logf("python is left out: %v\n%s", err, out)
		return nil
	}
	return []time.Duration{time.Since(begun)}
}

// python is a Python that has a driver for Postgres, the first in PATH or the system's; "" for none.
func python() string {
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import psycopg2").Run() == nil {
			return name
		}
	}
	return ""
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
