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

// Retention is how many generations are kept. A generation is an earlier state of the file, compressed and beside it:
// feedback-20261123T1600Z.json.gz with its manifest, feedback-20261123T1600Z.manifest.json.
type Retention struct {
	Count int // number of the newest ones that are kept; 0 makes none and leaves alone what is there
	Days  int // age in days at which they are removed; 0 sets no such limit
}

// generationTime is the time of writing in a generation's name, in UTC.
const generationTime = "20060102T1504Z"

// KeepGeneration keeps what the last Write wrote as a generation, and removes the generations that retention does not cover. It
// returns the new generation's path, or "" if retention keeps none. Other methods may run meanwhile. If it fails or ctx ends,
// the earlier generations are as they were, and no partial file is left.
func (f *File) KeepGeneration(ctx context.Context, retention Retention) (string, error) {
	if retention.Count <= 0 {
		return "", nil
	}
	path, err := f.keepGeneration(ctx, retention)
	if err != nil {
		return "", fmt.Errorf("keep a generation of %s: %w", filepath.Base(f.dataPath), volume.WithHint(err))
	}
	return path, nil
}

func (f *File) keepGeneration(ctx context.Context, retention Retention) (string, error) {
	file, m, err := f.openLastWritten()
	if err != nil {
		return "", err
	}
	defer file.Close()
	g := generations{folder: f.folder(), base: strings.TrimSuffix(filepath.Base(f.dataPath), ".json")}
	path, err := g.write(ctx, file, m)
	if err != nil {
		return "", err
	}
	return path, g.prune(retention, m.WrittenAt)
}

// openLastWritten opens the file as the last Write left it, and returns its manifest.
func (f *File) openLastWritten() (*os.File, Manifest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, Manifest{}, os.ErrClosed
	}
	if f.last.file == nil {
		return nil, Manifest{}, errors.New("the last flush failed; there is nothing new to keep")
	}
	file, err := os.Open(f.dataPath)
	return file, f.last.manifest, err
}

// generations are the generations of one file.
type generations struct {
	folder string
	base   string // the file's name without .json
}

func (g generations) dataPath(stamp string) string {
	return filepath.Join(g.folder, g.base+"-"+stamp+".json.gz")
}

func (g generations) manifestPath(stamp string) string {
	return filepath.Join(g.folder, g.base+"-"+stamp+".manifest.json")
}

// write makes the generation of m from the open file. As with the file itself, the manifest comes last, so a generation with a
// manifest is complete.
func (g generations) write(ctx context.Context, file *os.File, m Manifest) (string, error) {
	stamp := m.WrittenAt.UTC().Format(generationTime)
	path := g.dataPath(stamp)
	err := replaceSynced(path, file.Name(), func(w *os.File) (err error) {
		m.SHA256, err = compressVerified(ctx, w, file, m, g.base+".json")
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
	err = replaceSynced(g.manifestPath(stamp), file.Name(), func(w *os.File) error {
		_, err := w.Write(manifest)
		return err
	})
	if err != nil {
		return "", err
	}
	return path, syncFolder(g.folder)
}

// compressVerified compresses r to w, and returns the SHA-256 of what it read. The error may be that this is not what m
// describes. It prefers speed to size, since it runs every hour on the machine that follows the table.
func compressVerified(ctx context.Context, w io.Writer, r io.Reader, m Manifest, name string) (sum string, err error) {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return "", err
	}
	z.Name, z.ModTime = name, m.WrittenAt
	h := NewHasher(m)
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		h.Write(buf[:n])
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
	if mismatch := h.Mismatch(m); mismatch != "" {
		return "", fmt.Errorf("the file is not the one that was written, another program changed it: %s", mismatch)
	}
	return h.SHA256(), z.Close()
}

var generationName = regexp.MustCompile(`^-(\d{8}T\d{4}Z)\.(json\.gz|manifest\.json)(\.tmp)?$`)

// parseName returns the time in a file's name and whether the name is a temporary one. It reports false if the name is not
// exactly that of a generation's file.
func (g generations) parseName(name string) (stamp string, tmp, ok bool) {
	rest, ok := strings.CutPrefix(name, g.base)
	match := generationName.FindStringSubmatch(rest)
	if !ok || match == nil {
		return "", false, false
	}
	t, err := time.Parse(generationTime, match[1])
	return match[1], match[3] != "", err == nil && t.Format(generationTime) == match[1]
}

// prune removes the generations that retention does not cover at the time now, and temporary files that a crash left. It
// touches no file with another name.
func (g generations) prune(retention Retention, now time.Time) error {
	files, stamps, err := g.list()
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, stamp := range stamps[max(0, len(stamps)-retention.Count):] {
		t, _ := time.Parse(generationTime, stamp)
		kept[stamp] = retention.Days <= 0 || now.Truncate(time.Minute).Sub(t) <= time.Duration(retention.Days)*24*time.Hour
	}
	var failed error
	for stamp, names := range files {
		if kept[stamp] {
			continue
		}
		for _, name := range names {
			if err := os.Remove(filepath.Join(g.folder, name)); err != nil && !isMissing(err) {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}

// list returns the names of all generations' files by the times in them, and the times for which there is data, in order. It
// removes temporary files.
func (g generations) list() (files map[string][]string, stamps []string, err error) {
	entries, err := os.ReadDir(g.folder)
	if err != nil {
		return nil, nil, err
	}
	files = map[string][]string{}
	for _, e := range entries {
		stamp, tmp, ok := g.parseName(e.Name())
		switch {
		case !ok || !e.Type().IsRegular():
		case tmp:
			os.Remove(filepath.Join(g.folder, e.Name()))
		default:
			files[stamp] = append(files[stamp], e.Name())
			if strings.HasSuffix(e.Name(), ".gz") {
				stamps = append(stamps, stamp)
			}
		}
	}
	slices.Sort(stamps)
	return files, stamps, nil
}
