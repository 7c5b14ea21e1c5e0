// The program bench measures capture against floors and other programs, and writes what it found into the documentation:
// `make bench` runs it. The benchmarks themselves are Go's: those of this folder look at the program from outside, as a
// process beside a server of its own; the one of the stream is in package capture, since it begins at a slot that is
// filled. Each is run several times, and takes capture and what it is measured against in turn, so that the medians mean
// something on a machine that is now faster and now slower.
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
	runs := flag.Int("runs", 5, "how often each benchmark is run")
	only := flag.String("bench", ".", "which benchmarks, as go test's -bench; the documentation is written where it is all")
	doc := flag.String("doc", "docs/performance.md", "the documentation that takes the table")
	flag.Parse()
	if err := measure(*runs, *only, *doc); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure(runs int, only, doc string) error {
	name, parts, _ := strings.Cut(only, "/")
	stream, err := regexp.MatchString(name, "BenchmarkStream")
	if err != nil {
		return fmt.Errorf("-bench: %w", err)
	}
	m := machine()
	found := make(results)
	err = run(found, "./internal/bench", only, runs)
	if stream {
		err = errors.Join(err, run(found, "./capture", "^BenchmarkStream$/"+parts, runs))
	}
	m.finish(found, runs)
	text := m.String() + "\n" + table(found)
	fmt.Print(text) // after a failure, too: it may have taken an hour
	if err != nil {
		return err
	}
	if only != "." {
		return nil
	}
	return insert(doc, text)
}

// results are the figures of each benchmark, by its name and then by their unit, one of each run.
type results map[string]map[string][]float64

// run runs benchmarks of a package, shows how they get on, and adds their figures.
func run(found results, folder, bench string, runs int) error {
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", bench, "-benchtime", "1x", "-count", strconv.Itoa(runs), "-timeout", "0", folder)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run the benchmarks of %s: %w", folder, err)
	}
	readErr := found.read(io.TeeReader(out, os.Stderr))
	if err := errors.Join(readErr, cmd.Wait()); err != nil {
		return fmt.Errorf("run the benchmarks of %s: %w", folder, err)
	}
	return nil
}

// read adds what go test prints: a line for each run, of a name, a number of iterations, and figures with their units.
func (found results) read(out io.Reader) error {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(words[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i >= 0 { // the number of processors
			name = name[:i]
		}
		if found[name] == nil {
			found[name] = make(map[string][]float64)
		}
		for i := 2; i+1 < len(words); i += 2 {
			figure, err := strconv.ParseFloat(words[i], 64)
			if err != nil {
				return fmt.Errorf("%q is no benchmark's line: %w", lines.Text(), err)
			}
			found[name][words[i+1]] = append(found[name][words[i+1]], figure)
		}
	}
	return lines.Err()
}

// The table stands between these two lines of the documentation.
const (
	tableBegins = "<!-- what follows is written by make bench -->\n"
	tableEnds   = "<!-- what precedes is written by make bench -->\n"
)

// insert puts the text into the documentation, in place of what an earlier run wrote.
func insert(doc, text string) error {
	content, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(content), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("%s lacks the lines between which the table goes", doc)
	}
	return os.WriteFile(doc, []byte(before+tableBegins+"\n"+text+"\n"+tableEnds+after), 0o644)
}
