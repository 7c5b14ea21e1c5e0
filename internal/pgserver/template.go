package pgserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// initdb takes a second of processor time. Copying its result takes a fortieth of that. So the servers of tests begin as
// copies of a template: a tar archive of a data folder that initdb has created and that no server has used. The template stays
// in the user's cache, for the tests of other packages and for later runs.

// findTemplate returns the path of the template of the installed server programs, and creates it if there is none.
func findTemplate(ctx context.Context) (path string, err error) {
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
	path = filepath.Join(cache, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	return path, createTemplate(ctx, bin, path)
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
	return fmt.Sprintf("cluster-%x.tar", hash.Sum(nil)[:8]), nil
}

// createTemplate creates the template at path. If another process creates the same template at the same time, the process
// that finishes last wins.
func createTemplate(ctx context.Context, bin, path string) error {
	s, err := newServer(bin, memoryDir())
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.runInitdb(ctx, nil); err != nil {
		return err
	}
	if err := s.removeMaps(); err != nil {
		return err
	}
	if err := s.shortenWAL(); err != nil {
		return err
	}
	unfinished, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(unfinished.Name())
	tar := exec.CommandContext(ctx, "tar", "-cf", "-", filepath.Base(s.Dir()))
	tar.Dir, tar.Stdout = s.root, unfinished
	if err := errors.Join(runTar(tar), unfinished.Close()); err != nil {
		return err
	}
	return os.Rename(unfinished.Name(), path)
}

// removeMaps removes the free space maps and visibility maps from the databases of a stopped cluster. A quarter of all files
// are such maps. Each new server and CREATE DATABASE would copy them, and DROP DATABASE would remove them. Postgres creates
// them again if it needs them.
func (s *Server) removeMaps() error {
	for _, fork := range []string{"fsm", "vm"} {
		paths, _ := filepath.Glob(filepath.Join(s.Dir(), "base", "*", "*_"+fork)) // Glob fails only for a bad pattern
		for _, path := range paths {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyTemplate creates the data folder as a copy of the template. The copy gets a system identifier of its own, like every
// cluster that initdb creates.
func (s *Server) copyTemplate(ctx context.Context, template string) error {
	archive, err := os.Open(template)
	if err != nil {
		return fmt.Errorf("copy the template: %w", err)
	}
	defer archive.Close()
	// The program tar takes half as much processor time as cp -R, and much less than Go code under the race detector. It runs
	// as the server's user, which then owns the files.
	tar := exec.CommandContext(ctx, "tar", "-xf", "-")
	tar.Dir, tar.Stdin, tar.SysProcAttr = s.root, archive, &syscall.SysProcAttr{Credential: s.credential}
	if err := runTar(tar); err != nil {
		return fmt.Errorf("copy the template: %w", err)
	}
	// The shift keeps the identifier positive, because pg_control_system returns a signed number.
	if err := s.setSystemIdentifier(rand.Uint64() >> 1); err != nil {
		return fmt.Errorf("change the system identifier: %w", err)
	}
	if err := s.lengthenWAL(); err != nil {
		return fmt.Errorf("lengthen the WAL: %w", err)
	}
	return nil
}

// runTar runs a command of the program tar, which every system has.
func runTar(tar *exec.Cmd) error {
	var messages bytes.Buffer
	tar.Stderr = &messages
	if err := tar.Run(); err != nil {
		return fmt.Errorf("tar: %w: %s", err, bytes.TrimSpace(messages.Bytes()))
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

	wal, err := s.openWAL()
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
		return fmt.Errorf("%s has another system identifier than %s", wal.Name(), control)
	}
	_, err = wal.WriteAt(data[:8], at)
	return err
}

// openWAL opens the only file of WAL that a new cluster has.
func (s *Server) openWAL() (*os.File, error) {
	logs, _ := filepath.Glob(filepath.Join(s.Dir(), "pg_wal", "0*")) // Glob fails only for a bad pattern
	if len(logs) != 1 {
		return nil, fmt.Errorf("a new cluster has one file of WAL, not %q", logs)
	}
	return os.OpenFile(logs[0], os.O_RDWR, 0)
}

// shortenWAL removes the zero bytes at the end of a new cluster's WAL, which are two thirds of it.
func (s *Server) shortenWAL() error {
	wal, err := s.openWAL()
	if err != nil {
		return err
	}
	defer wal.Close()
	data, err := io.ReadAll(wal)
	if err != nil {
		return err
	}
	return wal.Truncate(int64(len(bytes.TrimRight(data, "\x00"))))
}

// lengthenWAL appends the zero bytes that shortenWAL has removed. They take no room until the server overwrites them.
func (s *Server) lengthenWAL() error {
	wal, err := s.openWAL()
	if err != nil {
		return err
	}
	defer wal.Close()
	size := make([]byte, 4)
	if _, err := wal.ReadAt(size, 32); err != nil { // offset of xlp_seg_size in XLogLongPageHeaderData
		return err
	}
	return wal.Truncate(int64(binary.NativeEndian.Uint32(size)))
}
