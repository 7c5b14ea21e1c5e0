package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"capture/store"
	"capture/store/manifest"
)

func init() {
	children["detached"] = detachVolume
	children["mounted alone"] = openBoundFile
}

func TestDetachedVolume(t *testing.T) { inOwnMounts(t, "detached", t.TempDir()) }

// detachVolume detaches the volume of an open File, mounts an empty volume in its place, and then mounts the first volume
// again. Each Write must fail until the first volume is back.
func detachVolume(args []string) error {
	volume, elsewhere := filepath.Join(args[0], "volume"), filepath.Join(args[0], "elsewhere")
	if err := errors.Join(os.Mkdir(volume, 0o755), os.Mkdir(elsewhere, 0o755)); err != nil {
		return err
	}
	if err := mountSmall(volume); err != nil {
		return err
	}
	// The second mount preserves the content of the volume, so that the volume can be mounted again.
	if err := unix.Mount(volume, elsewhere, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for _, folder := range []string{volume, filepath.Join(volume, "below")} {
		path := filepath.Join(folder, "feedback.json")
		f, err := store.Open(path, owner)
		if err != nil {
			return err
		}
		tab := votes(100, "x")
		if _, err := f.Write(tab.View(), store.ReasonStart); err != nil {
			return err
		}
		refused := func(when string) error {
			if problem := f.CheckInPlace(); !strings.Contains(problem, "on another device") {
				return fmt.Errorf("%s: CheckInPlace returns %q", when, problem)
			}
			if _, err := f.PutBack(tab.View(), manifest.Manifest{}); err == nil || !strings.Contains(err.Error(), "on another device") {
				return fmt.Errorf("%s: the error of PutBack is %v", when, err)
			}
			put(tab, 1, when)
			tab.Commit(tab.View().Position())
			_, err := f.Write(tab.View(), store.ReasonChange)
			if err == nil || !strings.Contains(err.Error(), "on another device") {
				return fmt.Errorf("%s: the error is %v", when, err)
			}
			if folder != volume { // this folder is below the mount point, so Write must not create it
				if _, err := os.Stat(folder); err == nil {
					return fmt.Errorf("%s: the folder was created", when)
				}
			} else if entries, err := os.ReadDir(folder); err != nil || len(entries) > 0 {
				return fmt.Errorf("%s: in the folder are %v, %v", when, entries, err)
			}
			return nil
		}
		if err := unix.Unmount(volume, unix.MNT_DETACH); err != nil {
			return err
		}
		if err := refused("detached"); err != nil {
			return err
		}
		if err := mountSmall(volume); err != nil {
			return err
		}
		if err := refused("an empty volume"); err != nil {
			return err
		}
		if err := unix.Unmount(volume, 0); err != nil {
			return err
		}
		if err := unix.Mount(elsewhere, volume, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if problem := f.CheckInPlace(); problem != "" {
			return fmt.Errorf("mounted again: CheckInPlace returns %q", problem)
		}
		if _, err := f.Write(tab.View(), store.ReasonChange); err != nil {
			return fmt.Errorf("mounted again: %w", err)
		}
		// Put a copy of the lock file on another device. This simulates that the volume was mounted again and got another device
		// number. The copy contains the random word that f wrote (see lockword.go), so the Write must succeed.
		lock, err := os.ReadFile(path + ".lock")
		if err != nil {
			return err
		}
		if err := errors.Join(unix.Unmount(volume, unix.MNT_DETACH), mountSmall(volume), os.MkdirAll(folder, 0o755), os.WriteFile(path+".lock", lock, 0o600)); err != nil {
			return err
		}
		if _, err := f.Write(tab.View(), store.ReasonForced); err != nil {
			return fmt.Errorf("with our word in the lock file: %w", err)
		}
		if err := f.Close(); err != nil {
			return err
		}
		if err := errors.Join(unix.Unmount(volume, unix.MNT_DETACH), unix.Mount(elsewhere, volume, "", unix.MS_BIND, "")); err != nil {
			return err
		}
	}
	return nil
}

func TestFileMountedByItself(t *testing.T) { inOwnMounts(t, "mounted alone", t.TempDir()) }

// openBoundFile opens a file that is itself a mount point. Open must refuse it.
func openBoundFile(args []string) error {
	path := filepath.Join(args[0], "feedback.json")
	if err := os.WriteFile(path, []byte("[]\n"), 0o640); err != nil {
		return err
	}
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("%s: %w", mountRefused, err)
	}
	_, err := store.Open(path, owner)
	if err == nil || !strings.Contains(err.Error(), "mount its folder "+args[0]) {
		return fmt.Errorf("the error is %v", err)
	}
	return nil
}
