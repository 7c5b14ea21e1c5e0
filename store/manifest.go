package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Reason is why a file was written.
type Reason string

const (
	ReasonStart    Reason = "start"    // the first copy is there
	ReasonChange   Reason = "change"   // the table changed
	ReasonInterval Reason = "interval" // it was time
	ReasonForced   Reason = "forced"   // somebody asked the daemon
	ReasonStop     Reason = "stop"     // the daemon ends
	ReasonExport   Reason = "export"   // somebody asked, and no daemon runs
)

// manifestFormat is the version of the manifest's format that this package writes and reads.
const manifestFormat = 1

// A manifest of 1,600 columns with the longest names stays well below both bounds. Without them, reading one that somebody
// made up could take any amount of memory.
const (
	maxManifestBytes  = 8 << 20
	maxManifestCommas = 100_000
)

// Manifest says what feedback.json is: which table, which state of it, and how to tell that the file is whole.
type Manifest struct {
	Format        int              `json:"format"` // 1
	Table         TableName        `json:"table"`
	Columns       []rowjson.Column `json:"columns"`
	Key           []string         `json:"key"` // names of the key's columns, in its order
	Rows          int              `json:"rows"`
	Bytes         int64            `json:"bytes"`
	SHA256        string           `json:"sha256,omitempty"` // of the file, in lower-case hex; "" while [File.Complete] is owed
	Blocks        *Blocks          `json:"blocks,omitempty"` // nil where there is SHA256
	Source        string           `json:"source,omitempty"`
	Database      string           `json:"database,omitempty"`
	SystemID      string           `json:"system_id,omitempty"`
	ServerVersion string           `json:"server_version,omitempty"`
	Reason        Reason           `json:"reason"`
	WrittenBy     string           `json:"written_by"`           // "capture 1.2.3"
	LSN           string           `json:"lsn,omitempty"`        // "0/16B3748"; "" where the source knows none
	CommitTime    time.Time        `json:"commit_time,omitzero"` // of the last transaction in the file; zero where unknown
	WrittenAt     time.Time        `json:"written_at"`           // by this machine's clock
}

// Blocks is a digest of a file of which little has to be hashed anew where little has changed: the SHA-256 of the SHA-256s,
// in binary, of its blocks.
type Blocks struct {
	Bytes  int64  `json:"bytes"`  // of a block; the last one may be shorter
	SHA256 string `json:"sha256"` // in lower-case hex
}

// TableName is a table's name as the catalog has it, unquoted.
type TableName struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

// timeFormat has microseconds always, so that times line up and sort as text.
const timeFormat = "2006-01-02T15:04:05.000000Z07:00"

// MarshalJSON writes times in UTC with microseconds.
func (m Manifest) MarshalJSON() ([]byte, error) { return json.Marshal(m.wire()) }

type plainManifest Manifest

// wireManifest is the JSON form: its own times hide those of plainManifest.
type wireManifest struct {
	plainManifest
	CommitTime string `json:"commit_time,omitempty"`
	WrittenAt  string `json:"written_at"`
}

func (m Manifest) wire() wireManifest {
	w := wireManifest{plainManifest: plainManifest(m), WrittenAt: m.WrittenAt.UTC().Format(timeFormat)}
	if !m.CommitTime.IsZero() {
		w.CommitTime = m.CommitTime.UTC().Format(timeFormat)
	}
	return w
}

// describe is the manifest of v; the caller adds the file's bytes and digests.
func describe(v *snapshot.View, reason Reason, version string) Manifest {
	shape, origin, position := v.Shape(), v.Origin(), v.Position()
	m := Manifest{
		Format:  manifestFormat,
		Table:   TableName{Schema: shape.Schema, Name: shape.Table},
		Columns: shape.Columns,
		Key:     make([]string, len(shape.Key)),
		Rows:    v.Rows(),
		Source:  origin.Source, Database: origin.Database, SystemID: origin.SystemID, ServerVersion: origin.ServerVersion,
		Reason: reason, WrittenBy: "capture " + version,
		CommitTime: position.CommitTime.UTC().Truncate(time.Microsecond),
		WrittenAt:  time.Now().UTC().Truncate(time.Microsecond),
	}
	for i, c := range shape.Key {
		m.Key[i] = shape.Columns[c].Name
	}
	if position.LSN != 0 {
		m.LSN = position.LSN.String()
	}
	return m
}

// encode is the manifest as it stands on disk.
func (m Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // defaults and type names are for people
	e.SetIndent("", "  ")
	err := e.Encode(m.wire())
	return b.Bytes(), err
}

// ManifestPath is where the manifest of the file at path is: x.manifest.json for x.json. Where path is a symbolic link,
// it is beside the file that the link leads to.
func ManifestPath(path string) string {
	path = followLink(path)
	return strings.TrimSuffix(path, ".json") + ".manifest.json"
}

// ReadManifest reads the manifest of the file at path (feedback.json, not the manifest itself). The error is
// fs.ErrNotExist where there is none. It does not look at the file: see [Hasher].
func ReadManifest(path string) (Manifest, error) {
	m, err := readManifest(ManifestPath(path))
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest of %s: %w", filepath.Base(path), err)
	}
	return m, nil
}

// OpenRead opens the file at path, or it compressed as path.gz, for reading, with the manifests beside it that may be its own:
// none where there is none, and two where a flush is between its two renames. Which one it is, [Hasher] can tell.
func OpenRead(path string) (*os.File, []Manifest, error) {
	for tries := 1; ; tries++ {
		file, err := os.Open(path)
		if err != nil {
			return nil, nil, err
		}
		manifests, err := manifestsOf(strings.TrimSuffix(path, ".gz"))
		if err != nil {
			file.Close()
			return nil, nil, err
		}
		// Where a flush has come in between, they are another file's.
		is, err := file.Stat()
		there, terr := os.Stat(path)
		if tries == 50 || err == nil && terr == nil && os.SameFile(is, there) && is.ModTime().Equal(there.ModTime()) {
			return file, manifests, nil
		}
		file.Close()
	}
}

// manifestsOf reads them in the order in which the renames leave one of them there at any time: the manifest of a file has
// its temporary name before the file has its own, and changes that for its own after.
func manifestsOf(path string) (all []Manifest, err error) {
	pending, perr := readManifest(ManifestPath(path) + ".tmp")
	m, err := ReadManifest(path)
	if err == nil {
		all = append(all, m)
	} else if missing(err) {
		err = nil
	}
	if perr == nil {
		all = append(all, pending)
	}
	return all, err
}

func readManifest(path string) (Manifest, error) {
	// A pipe in its place must not hold us up.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Manifest{}, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return Manifest{}, err
	} else if !info.Mode().IsRegular() {
		return Manifest{}, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxManifestBytes+1))
	if err != nil {
		return Manifest{}, err
	}
	m, err := parseManifest(data)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s is not a manifest: %w", path, err)
	}
	return m, nil
}

func parseManifest(data []byte) (Manifest, error) {
	if len(data) > maxManifestBytes || bytes.Count(data, []byte(",")) > maxManifestCommas {
		return Manifest{}, errors.New("it is too large")
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, brief(err)
	}
	switch {
	case m.Format > manifestFormat:
		return Manifest{}, fmt.Errorf("its format is %d, and this capture knows up to %d: use a newer one", m.Format, manifestFormat)
	case m.Format != manifestFormat:
		return Manifest{}, fmt.Errorf("its format is %d, not %d", m.Format, manifestFormat)
	case !isSum(m.SHA256) && (m.SHA256 != "" || m.Blocks == nil):
		return Manifest{}, errors.New("its sha256 is not 64 digits of lower-case hex")
	case m.Blocks != nil && !isSum(m.Blocks.SHA256):
		return Manifest{}, errors.New("the sha256 of its blocks is not 64 digits of lower-case hex")
	case m.Blocks != nil && m.Blocks.Bytes != blockBytes:
		return Manifest{}, fmt.Errorf("its blocks have %d bytes, and this capture knows those of %d: use the one that wrote it", m.Blocks.Bytes, blockBytes)
	case m.Rows < 0 || m.Bytes < 0:
		return Manifest{}, errors.New("its rows or bytes are negative")
	}
	return m, nil
}

// isSum says whether s is a SHA-256 as manifests have it.
func isSum(s string) bool {
	sum, err := hex.DecodeString(s)
	return err == nil && len(sum) == sha256.Size && strings.ToLower(s) == s
}

// brief keeps an error that quotes what it read from being as long as what it read.
func brief(err error) error {
	const most = 160
	if text := err.Error(); len(text) > most {
		return errors.New(strings.ToValidUTF8(text[:most], "") + "…")
	}
	return err
}

// followLink is what path leads to where it is a symbolic link, also one to a file that is not there yet; else path. Links
// in the folder's path are left alone: the folder may be swapped while capture runs.
func followLink(path string) string {
	for range 40 { // as many as the kernel follows
		target, err := os.Readlink(path)
		if err != nil {
			return path
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return path
}

// missing says whether err is that there is no such file.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
