package capture

import (
	"errors"
	"fmt"
	osexec "os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// remount makes the child mount its volume in another way (see the function remount).
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

// remount changes the size of the volume at dir, or whether it is read-only. (While the lock file is open, only a second mount
// over the first mount can be read-only.)
func remount(dir, how string) error {
	switch how {
	case "ro":
		return errors.Join(unix.Mount(dir, dir, "", unix.MS_BIND, ""),
			unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	case "rw":
		return unix.Unmount(dir, unix.MNT_DETACH) // a file may be open there
	}
	return unix.Mount("", dir, "", unix.MS_REMOUNT, how)
}

// mayMount reports whether this process may create a mount namespace.
func mayMount() bool {
	cmd := osexec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	return cmd.Run() == nil
}
