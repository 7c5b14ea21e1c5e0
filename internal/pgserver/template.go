package pgserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
)

// initdb takes a second of processor time. Copying its result takes a twentieth of that. So the servers of tests begin as
// copies of a template: a data folder that initdb has created and that no server has used. The template stays in the user's
// cache, for the tests of other packages and for later runs.

// findTemplate returns the template of the installed server programs, and creates it if there is none.
func findTemplate(ctx context.Context) (dir string, err error) {
	bin, err := Bin()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil { // the user has no home folder
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "capture-test")
	name, err := templateName(bin)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	return dir, createTemplate(ctx, bin, dir)
}

// templateName returns a name that identifies the server programs, the flags of initdb and the value of $TZ, from which initdb
// takes the server's time zone.
func templateName(bin string) (string, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, bin, os.Getenv("TZ"), initdbFlags())
	for _, program := range []string{"initdb", "postgres"} {
		info, err := os.Stat(filepath.Join(bin, program))
		if err != nil {
			return "", err
		}
		fmt.Fprintln(hash, info.Size(), info.ModTime().UnixNano())
	}
	return fmt.Sprintf("cluster-%x", hash.Sum(nil)[:8]), nil
}

// createTemplate creates the template in the folder dir. If another process creates the same template at the same time, the
// process that finishes first wins.
func createTemplate(ctx context.Context, bin, dir string) error {
	s, err := newServer(bin, memoryDir())
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.runInitdb(ctx, nil); err != nil {
		return err
	}
	unfinished, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unfinished)
	data := filepath.Join(unfinished, "data")
	if err := copyTree(ctx, s.Dir(), data); err != nil {
		return fmt.Errorf("copy the template: %w", err)
	}
	if err := os.Rename(data, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// copyTemplate creates the data folder as a copy of the template. The copy gets a system identifier of its own, like every
// cluster that initdb creates.
func (s *Server) copyTemplate(ctx context.Context, template string) error {
	err := copyTree(ctx, template, s.Dir())
	if err == nil && s.credential != nil {
		err = runTool(ctx, "chown", "-R", fmt.Sprintf("%d:%d", s.credential.Uid, s.credential.Gid), s.Dir())
	}
	if err != nil {
		return fmt.Errorf("copy the template: %w", err)
	}
	// The shift keeps the identifier positive, because pg_control_system returns a signed number.
	if err := s.setSystemIdentifier(rand.Uint64() >> 1); err != nil {
		return fmt.Errorf("change the system identifier: %w", err)
	}
	return nil
}

// copyTree copies the data folder of a stopped cluster. It runs the program cp, because Go code would take four times as
// long under the race detector.
func copyTree(ctx context.Context, from, to string) error { return runTool(ctx, "cp", "-R", from, to) }

// runTool runs a program of the system.
func runTool(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// setSystemIdentifier changes the system identifier of a new cluster that has not been started yet. The identifier is in
// pg_control, which ends with a CRC (ControlFileData in catalog/pg_control.h), and in the header of each WAL file
// (XLogLongPageHeaderData in access/xlog_internal.h). pg_createsubscriber changes pg_control in the same way, but then makes
// pg_resetwal write a new WAL file.
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

	logs, _ := filepath.Glob(filepath.Join(s.Dir(), "pg_wal", "0*")) // Glob fails only for a bad pattern
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
