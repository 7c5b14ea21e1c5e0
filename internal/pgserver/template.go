package pgserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// initdb needs a second of processor time, and a copy of its result a twentieth of that. So the tests of a package share a
// template, a cluster that is never started, and each of their servers begins as a copy of it.

// newTemplate returns a server that is never started. Its data folder is what initdb has created.
func newTemplate(ctx context.Context, dir string) (*Server, error) {
	s, err := newServer("", dir)
	if err != nil {
		return nil, err
	}
	if err := s.runInitdb(ctx, nil); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// copyTemplate creates the data folder as a copy of the template's. The copy gets a system identifier of its own, as every
// cluster has that initdb creates.
func (s *Server) copyTemplate(template *Server) error {
	if err := copyTree(template.Dir(), s); err != nil {
		return fmt.Errorf("copy the template: %w", err)
	}
	if err := s.setSystemIdentifier(rand.Uint64() >> 1); err != nil { // pg_control_system returns it as a signed number
		return fmt.Errorf("change the system identifier: %w", err)
	}
	return nil
}

// copyTree copies the data folder of a cluster that does not run.
func copyTree(data string, to *Server) error {
	return filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(data, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to.Dir(), rel)
		if entry.IsDir() {
			return errors.Join(os.Mkdir(target, 0o700), to.chownToServer(target))
		}
		return copyFile(path, target, to)
	})
}

// setSystemIdentifier changes the system identifier of a new cluster that has not been started yet. It is in pg_control, which
// ends with a CRC (ControlFileData in catalog/pg_control.h), and in the header of each WAL file (XLogLongPageHeaderData in
// access/xlog_internal.h). pg_createsubscriber changes the first in the same way, but has pg_resetwal write other WAL.
func (s *Server) setSystemIdentifier(id uint64) error {
	control := filepath.Join(s.Dir(), "global", "pg_control")
	data, err := os.ReadFile(control)
	if err != nil {
		return err
	}
	end, castagnoli := 8, crc32.MakeTable(crc32.Castagnoli)
	for crc32.Checksum(data[:end], castagnoli) != binary.NativeEndian.Uint32(data[end:]) {
		if end += 4; end+4 > len(data) {
			return fmt.Errorf("%s has no CRC", control)
		}
	}
	before := bytes.Clone(data[:8])
	binary.NativeEndian.PutUint64(data, id)
	binary.NativeEndian.PutUint32(data[end:], crc32.Checksum(data[:end], castagnoli))
	if err := os.WriteFile(control, data, 0o600); err != nil {
		return err
	}

	logs, _ := filepath.Glob(filepath.Join(s.Dir(), "pg_wal", "0*")) // fails only for a bad pattern
	if len(logs) != 1 {
		return fmt.Errorf("a new cluster has one file of WAL, not %q", logs)
	}
	wal, err := os.OpenFile(logs[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer wal.Close()
	const at = 24 // offset of xlp_sysid
	found := make([]byte, 8)
	if _, err := wal.ReadAt(found, at); err != nil {
		return err
	}
	if !bytes.Equal(found, before) {
		return fmt.Errorf("%s has another system identifier than %s", logs[0], control)
	}
	_, err = wal.WriteAt(data[:8], at)
	return err
}
