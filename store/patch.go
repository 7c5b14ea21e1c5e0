package store

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"capture/store/disk"
	"capture/store/placement"
)

// patch turns the content of the open file into the new version, and syncs the file. oldLayout is the layout of the file
// before the patch. patch writes the spans that differ, widened to multiples of align bytes. At the same time, another
// goroutine turns the digest of the last version into the digest of the new version. The two goroutines can run in parallel,
// because both take the bytes from the rows in memory.
func (p *pendingVersion) patch(file *os.File, oldLayout *placement.Layout, align int64, last written) error {
	p.patched = true
	hashed := make(chan error, 1)
	p.digest = last.digest
	go func() { hashed <- p.digest.update(&p.content, last.layout, p.complete) }()
	err := p.writeSpans(file, p.ChangedSpans(oldLayout, align))
	if err == nil {
		err = file.Truncate(p.Bytes)
	}
	if err == nil {
		err = stampVersion(file)
	}
	endLease(file) // ends the lease of a shadow; a clone has no lease
	if err == nil {
		err = file.Sync()
	}
	if herr := <-hashed; err == nil {
		err = herr
	}
	return err
}

// stampVersion sets the modification time, which is part of a version's identity (see written.isOnDisk), to the current time.
// Without this, Linux before 6.13 would use a clock that advances only every few milliseconds. That is too coarse to
// distinguish two versions with one inode.
func stampVersion(file *os.File) error {
	now := unix.NsecToTimeval(time.Now().UnixNano())
	return os.NewSyscallError("futimes", unix.Futimes(int(file.Fd()), []unix.Timeval{now, now}))
}

func (p *pendingVersion) writeSpans(file *os.File, spans []placement.Span) error {
	if len(spans) == 0 {
		return nil
	}
	buf, scratch := disk.AlignedBuffer(1<<20), []byte(nil)
	for _, s := range spans {
		for off := s.From; off < s.To; {
			b := buf[:min(int64(len(buf)), s.To-off)]
			if err := p.readAt(&scratch, b, off); err != nil {
				return err
			}
			if _, err := file.WriteAt(b, off); err != nil {
				return err
			}
			off += int64(len(b))
			p.bytesWritten += int64(len(b))
		}
	}
	return nil
}
