package disk

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// OpenRegular opens the regular file at path for reading. Somebody who may write to the folder can replace a file of capture
// by a symbolic link or a named pipe. OpenRegular does not follow a link, because this person might not be allowed to read
// its target. It does not wait for the writer of a pipe.
func OpenRegular(path string) (*os.File, error) {
	return openRegular(path, os.O_RDONLY|unix.O_NOFOLLOW)
}

// OpenLinked is like [OpenRegular], but follows symbolic links. It is for files that a user has named.
func OpenLinked(path string) (*os.File, error) {
	return openRegular(path, os.O_RDONLY)
}

// leaseWait is how long openRegular waits for another program to give up its lease on the file. By default, the kernel takes
// the lease away 45 seconds after the first attempt to open the file (see lease-break-time in proc_sys_fs(5)).
const leaseWait = time.Minute

func openRegular(path string, flags int) (*os.File, error) {
	file, err := os.OpenFile(path, flags|unix.O_NONBLOCK, 0)
	// With O_NONBLOCK, open does not wait for the writer of a named pipe that somebody has put in the place of the file. But
	// open also does not wait for the end of a lease that another program, such as a file server, has on the file. It fails
	// instead, so the loop tries again until the lease ends.
	for start := time.Now(); errors.Is(err, unix.EWOULDBLOCK) && time.Since(start) < leaseWait; {
		time.Sleep(10 * time.Millisecond)
		file, err = os.OpenFile(path, flags|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errors.New("it is not a regular file")}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
