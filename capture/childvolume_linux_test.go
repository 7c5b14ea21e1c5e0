package capture

import (
	"errors"
	"fmt"
	osexec "os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// remount makes the child process remount its volume. See the function remount for the values of how.
func (c *child) remount(how string) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.stdin, how); err != nil {
		c.t.Fatal(err)
	}
}

// mountSmall mounts a small volume at dir.
func mountSmall(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return nil
}

// remount makes the volume at dir read-only ("ro") or writable ("rw"), or changes its mount options, for example to
// "size=64m". The volume itself cannot become read-only while the lock file is open. For "ro", remount therefore mounts it a
// second time, read-only, over the first mount.
func remount(dir, how string) error {
	switch how {
	case "ro":
		return errors.Join(unix.Mount(dir, dir, "", unix.MS_BIND, ""),
			unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	case "rw":
		return unix.Unmount(dir, unix.MNT_DETACH) // Unmount without MNT_DETACH fails while a file is open
	}
	return unix.Mount("", dir, "", unix.MS_REMOUNT, how)
}

// mayMount reports whether this process may create a mount namespace.
func mayMount() bool {
	cmd := osexec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	return cmd.Run() == nil
}
