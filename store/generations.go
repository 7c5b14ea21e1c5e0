package store

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"capture/internal/volume"
)

// Retention is how many earlier states of the file are kept beside it: feedback-20261123T1600Z.json.gz, each with its manifest,
// feedback-20261123T1600Z.manifest.json.
type Retention struct {
	Count int // the newest so many; 0 keeps none, and leaves alone what is there
	Days  int // none that is older; 0 sets no such limit
}

// generationTime is the time of writing in a generation's name, in UTC.
const generationTime = "20060102T1504Z"

// KeepGeneration keeps what the last Write wrote as a generation, and removes those that are beyond the limits of k. It
// returns the generation's path, "" where k keeps none. Writes go on meanwhile. An error, ctx's too, leaves the earlier
// generations as they are, and none half written under its name.
func (f *File) KeepGeneration(ctx context.Context, k Retention) (string, error) {
	if k.Count <= 0 {
		return "", nil
	}
	from, m, err := f.lastWritten()
	if err != nil {
		return "", fmt.Errorf("keep a generation of %s: %w", filepath.Base(f.path), volume.WithHint(err))
	}
	defer from.Close()
	g := generations{dir: filepath.Dir(f.path), base: strings.TrimSuffix(filepath.Base(f.path), ".json")}
	path, err := g.write(ctx, from, m)
	if err == nil {
		err = g.prune(k, m.WrittenAt)
	}
	if err != nil {
		return "", fmt.Errorf("keep a generation of %s: %w", filepath.Base(f.path), volume.WithHint(err))
	}
	return path, nil
}

// lastWritten is the file as the last Write left it, open, and its manifest.
func (f *File) lastWritten() (*os.File, Manifest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, Manifest{}, os.ErrClosed
	}
	if f.last.file == nil {
		return nil, Manifest{}, errors.New("the last flush failed, so that there is nothing new to keep")
	}
	from, err := os.Open(f.path)
	return from, f.last.manifest, err
}

// generations are the kept states of one file.
type generations struct {
	dir  string
	base string // the file's name without .json
}

func (g generations) data(stamp string) string {
	return filepath.Join(g.dir, g.base+"-"+stamp+".json.gz")
}

func (g generations) manifest(stamp string) string {
	return filepath.Join(g.dir, g.base+"-"+stamp+".manifest.json")
}

// write makes the generation of m. The manifest comes last, as it does for the file itself.
func (g generations) write(ctx context.Context, from *os.File, m Manifest) (string, error) {
	stamp := m.WrittenAt.UTC().Format(generationTime)
	path := g.data(stamp)
	err := replace(path, from.Name(), func(w *os.File) (err error) {
		m.SHA256, err = zip(ctx, w, from, m, g.base+".json")
		m.Blocks = nil
		return err
	})
	if err != nil {
		return "", err
	}
	manifest, err := m.encode()
	if err != nil {
		return "", err
	}
	err = replace(g.manifest(stamp), from.Name(), func(w *os.File) error {
		_, err := w.Write(manifest)
		return err
	})
	if err != nil {
		return "", err
	}
	return path, syncFolder(g.dir)
}

// replace writes a file under a temporary name, synced, and gives it its own.
func replace(path, like string, fill func(*os.File) error) error {
	tmp := path + ".tmp"
	_, err := writeTmp(tmp, like, fill)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// zip compresses from, sees to it that it is what m describes, and returns its SHA-256. Speed goes before size: a large file is compressed every
// hour on the machine that follows the table.
func zip(ctx context.Context, w io.Writer, from io.Reader, m Manifest, name string) (sum string, err error) {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return "", err
	}
	z.Name, z.ModTime = name, m.WrittenAt
	sums := NewHasher(m)
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		sums.Write(buf[:n])
		if _, werr := z.Write(buf[:n]); werr != nil {
			return "", werr
		}
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return "", err
		}
	}
	if why := sums.Mismatch(m); why != "" {
		return "", fmt.Errorf("the file is not the one that was written, another program changed it: %s", why)
	}
	return sums.SHA256(), z.Close()
}

var generationName = regexp.MustCompile(`^-(\d{8}T\d{4}Z)\.(json\.gz|manifest\.json)(\.tmp)?$`)

// stamp is the time in the name of one of the generations' files, and whether the name is one of theirs.
func (g generations) stamp(name string) (stamp string, tmp, ok bool) {
	rest, ok := strings.CutPrefix(name, g.base)
	match := generationName.FindStringSubmatch(rest)
	if !ok || match == nil {
		return "", false, false
	}
	t, err := time.Parse(generationTime, match[1])
	return match[1], match[3] != "", err == nil && t.Format(generationTime) == match[1]
}

// prune removes all generations but the newest k.Count, and those of more than k.Days days before now; also what a crash left of
// one. Names that are not exactly theirs are never touched.
func (g generations) prune(k Retention, now time.Time) error {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return err
	}
	files := map[string][]string{} // by stamp
	var stamps []string            // of those with data
	for _, e := range entries {
		stamp, tmp, ok := g.stamp(e.Name())
		switch {
		case !ok || !e.Type().IsRegular():
		case tmp:
			os.Remove(filepath.Join(g.dir, e.Name()))
		default:
			files[stamp] = append(files[stamp], e.Name())
			if strings.HasSuffix(e.Name(), ".gz") {
				stamps = append(stamps, stamp)
			}
		}
	}
	slices.Sort(stamps)
	kept := map[string]bool{}
	for _, stamp := range stamps[max(0, len(stamps)-k.Count):] {
		t, _ := time.Parse(generationTime, stamp)
		kept[stamp] = k.Days <= 0 || now.Truncate(time.Minute).Sub(t) <= time.Duration(k.Days)*24*time.Hour
	}
	var failed error
	for stamp, names := range files {
		if kept[stamp] {
			continue
		}
		for _, name := range names {
			if err := os.Remove(filepath.Join(g.dir, name)); err != nil && !missing(err) {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}
