// Command bench compares capture with baselines and with other programs, and writes the results into docs/performance.md.
// `make bench` runs it.
//
// The benchmarks are Go benchmarks. Most are in this folder: they run capture as a process, and start a Postgres server for
// it. The benchmark of the stream is in the package capture/logical. It uses the package's internals to let changes pile up
// in a slot before capture reads them. Each benchmark runs several times. Each run measures capture and its baseline in
// turn, so a change of the machine's speed affects both.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

func main() {
	runs := flag.Int("runs", 5, "number of runs of each benchmark")
	only := flag.String("bench", ".", "benchmarks to run, as for go test -bench; the documentation is written only if all run")
	doc := flag.String("doc", "docs/performance.md", "documentation file with the table")
	flag.Parse()
	if err := runBenchmarks(*runs, *only, *doc); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func runBenchmarks(runs int, only, doc string) error {
	name, parts, _ := strings.Cut(only, "/")
	stream, err := regexp.MatchString(name, "BenchmarkStream")
	if err != nil {
		return fmt.Errorf("-bench: %w", err)
	}
	e := describeEnvironment()
	found := make(results)
	err = runPackage(found, "./internal/bench", only, runs)
	if stream {
		err = errors.Join(err, runPackage(found, "./capture/logical", "^BenchmarkStream$/"+parts, runs))
	}
	e.addResults(found, runs)
	text := e.String() + "\n" + resultTable(found)
	fmt.Print(text) // even after an error, because the benchmarks that succeeded may have taken an hour
	if err != nil {
		return err
	}
	if only != "." {
		return nil
	}
	return replaceTable(doc, text)
}

// results maps a benchmark's name and a unit to the figures of all runs.
type results map[string]map[string][]float64

// runPackage runs the benchmarks of a package that match the pattern bench, shows their output, and adds their figures
// to the given results.
func runPackage(found results, folder, bench string, runs int) error {
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", bench, "-benchtime", "1x", "-count", strconv.Itoa(runs), "-timeout", "0", folder)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run the benchmarks of %s: %w", folder, err)
	}
	readErr := found.addOutput(io.TeeReader(out, os.Stderr))
	if err := errors.Join(readErr, cmd.Wait()); err != nil {
		return fmt.Errorf("run the benchmarks of %s: %w", folder, err)
	}
	return nil
}

// addOutput adds the figures in the output of go test. A line of the output has the name of a benchmark, a number of
// iterations, and the figures of one run with their units.
func (found results) addOutput(out io.Reader) error {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(words[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i >= 0 { // the number after the hyphen is GOMAXPROCS
			name = name[:i]
		}
		if found[name] == nil {
			found[name] = make(map[string][]float64)
		}
		for i := 2; i+1 < len(words); i += 2 {
			figure, err := strconv.ParseFloat(words[i], 64)
			if err != nil {
				return fmt.Errorf("parse benchmark result %q: %w", lines.Text(), err)
			}
			found[name][words[i+1]] = append(found[name][words[i+1]], figure)
		}
	}
	return lines.Err()
}

// These lines enclose the table in the documentation.
const (
	tableBegins = "<!-- what follows is written by make bench -->\n"
	tableEnds   = "<!-- what precedes is written by make bench -->\n"
)

// replaceTable replaces the text between tableBegins and tableEnds in the file doc.
func replaceTable(doc, text string) error {
	content, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(content), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("%s: the lines around the table are missing", doc)
	}
	return os.WriteFile(doc, []byte(before+tableBegins+"\n"+text+"\n"+tableEnds+after), 0o644)
}
