package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"capture/internal/foreign"
	"capture/store/disk"
)

// These constants limit the manifests that are accepted. Without them, a forged manifest could use any amount of memory. A
// manifest with 1,600 columns, the maximum in Postgres, and the longest names stays well below MaxBytes and maxCommas.
const (
	MaxBytes     = 8 << 20 // maximum length of a manifest in bytes
	maxDataBytes = 1 << 56 // maximum value of Manifest.Bytes; a higher value is a mistake, and additions might overflow
	maxCommas    = 100_000
	maxColumns   = 1600 // MaxHeapAttributeNumber in Postgres

	minBlockBytes = 4 << 10
	maxBlockBytes = 16 << 20
)

// Read reads the manifest of the file at path. path is the path of feedback.json, not of the manifest. If there is no
// manifest, the error is fs.ErrNotExist. Read does not compare the file with the manifest. Use a [Hasher] for that.
func Read(path string) (Manifest, error) {
	m, err := ReadAt(Path(path))
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest of %s: %w", filepath.Base(path), err)
	}
	return m, nil
}

// OpenRead opens the file at path for reading, and returns the manifests that may describe it. While a Write replaces the file
// and its manifest, there are two manifests. If the file has no manifest, OpenRead returns none. A [Hasher] finds the manifest
// that matches the file. For a path that ends in .gz or .zst, the manifests are those of the path without that ending.
func OpenRead(path string) (*os.File, []Manifest, error) {
	for tries := 1; ; tries++ {
		file, err := os.Open(path)
		if err != nil {
			return nil, nil, err
		}
		manifests, err := ReadAll(withoutCompression(path))
		if err != nil {
			file.Close()
			return nil, nil, err
		}
		// If a Write has replaced the file since os.Open, the manifests may describe the new file, so try again.
		opened, err := file.Stat()
		there, terr := os.Stat(path)
		if tries == 50 || err == nil && terr == nil && os.SameFile(opened, there) && opened.ModTime().Equal(there.ModTime()) {
			return file, manifests, nil
		}
		file.Close()
	}
}

// withoutCompression returns path without the ending of a compressed file.
func withoutCompression(path string) string {
	return strings.TrimSuffix(strings.TrimSuffix(path, ".gz"), ".zst")
}

// ReadAll returns the manifests that may describe the file at path, the final manifest first. It reads the pending manifest
// before the final one, because a Write may rename the pending manifest to the final name meanwhile. In the other order,
// ReadAll could read the old manifest before this rename, and find no pending manifest after it. It would then miss the
// manifest of the current file.
func ReadAll(path string) (all []Manifest, err error) {
	pending, perr := ReadAt(Path(path) + ".tmp")
	m, err := Read(path)
	if err == nil {
		all = append(all, m)
	} else if disk.IsMissing(err) {
		err = nil
	}
	if perr == nil {
		all = append(all, pending)
	}
	return all, err
}

// ReadAt reads the manifest file at path.
func ReadAt(path string) (Manifest, error) {
	f, err := disk.OpenLinked(path)
	if err != nil {
		return Manifest{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return Manifest{}, err
	}
	m, err := Parse(data)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s is not a manifest: %w", path, err)
	}
	return m, nil
}

// Parse parses a manifest of at most [MaxBytes], and checks it.
func Parse(data []byte) (Manifest, error) {
	if len(data) > MaxBytes || bytes.Count(data, []byte(",")) > maxCommas {
		return Manifest{}, errors.New("it is too large")
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, TruncateError(err)
	}
	switch {
	case m.Format > formatVersion:
		return Manifest{}, fmt.Errorf("its format is %d, and this capture knows up to %d: use a newer one", m.Format, formatVersion)
	case m.Format != formatVersion:
		return Manifest{}, fmt.Errorf("its format is %d, not %d", m.Format, formatVersion)
	case !isSHA256(m.SHA256) && (m.SHA256 != "" || m.Blocks == nil):
		return Manifest{}, errors.New("its sha256 is not 64 digits of lower-case hex")
	case m.Blocks != nil && !isSHA256(m.Blocks.SHA256):
		return Manifest{}, errors.New("the sha256 of its blocks is not 64 digits of lower-case hex")
	case m.Blocks != nil && (m.Blocks.Bytes < minBlockBytes || m.Blocks.Bytes > maxBlockBytes):
		return Manifest{}, fmt.Errorf("its blocks have %d bytes, not %d to %d", m.Blocks.Bytes, minBlockBytes, maxBlockBytes)
	case m.Omitted != nil && m.Omitted.Rows < 1:
		return Manifest{}, errors.New("it has a wrong number of omitted rows")
	case m.Rows < 0 || m.Bytes < 0 || m.Bytes > maxDataBytes || m.Timeline < 0:
		return Manifest{}, errors.New("its rows, bytes or timeline are out of range")
	}
	if m.Kept != nil && m.Kept.Loss != nil {
		m.Kept.Loss.checkChanges()
	}
	if m.Horizon != nil && m.Horizon.Seal != m.seal() {
		m.Horizon = nil // somebody edited the manifest, so the horizon may not belong to the rows
	}
	return m, checkTable(&m)
}

// checkTable returns an error unless a table in Postgres could have the columns, key and name in the manifest.
func checkTable(m *Manifest) error {
	const maxKey = 32 // INDEX_MAX_KEYS in Postgres
	if len(m.Columns) > maxColumns || len(m.Key) > maxKey {
		return errors.New("it has more columns than a table can have")
	}
	names := make(map[string]bool, len(m.Columns))
	for i := range m.Columns {
		c := &m.Columns[i]
		switch {
		case !isName(c.Name):
			return fmt.Errorf("the name of its column %d is empty or has a zero byte", i+1)
		case names[c.Name]:
			return fmt.Errorf("it has the column %s twice", foreign.Text(c.Name))
		case !slices.Contains([]string{"", "a", "d"}, c.Identity), !slices.Contains([]string{"", "s", "v"}, c.Generated):
			return fmt.Errorf("its column %s is generated, or an identity, in a way that Postgres does not know", foreign.Text(c.Name))
		}
		names[c.Name] = true
	}
	for i, name := range m.Key {
		if !names[name] || slices.Contains(m.Key[:i], name) {
			return fmt.Errorf("its key has %s, which is no column of it or is there twice", foreign.Text(name))
		}
	}
	if m.Table.Name != "" && !isName(m.Table.Name) || strings.Contains(m.Table.Schema, "\x00") {
		return errors.New("the name of its table has a zero byte")
	}
	return nil
}

// isName reports whether s can be a name in Postgres.
func isName(s string) bool { return s != "" && !strings.Contains(s, "\x00") }

// isSHA256 reports whether s is a SHA-256 in the form that manifests use.
func isSHA256(s string) bool {
	sum, err := hex.DecodeString(s)
	return err == nil && len(sum) == sha256.Size && strings.ToLower(s) == s
}

// TruncateError returns an error whose text is safe to print. The errors of encoding/json quote their input, which may be
// forged.
func TruncateError(err error) error {
	if text := foreign.Text(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}
