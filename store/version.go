package store

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"capture/snapshot"
)

// patchBytes is the size from which on a file is patched. A smaller one is written whole in a few milliseconds, has no
// slack, and leaves no spare behind.
var patchBytes int64 = 4 << 20

// version is a state of the file that is being written.
type version struct {
	*layout
	digest   *digest
	complete bool  // the digest must be, however long it takes
	wrote    int64 // bytes of it that went to disk
}

// newVersion lays v out, near to how the last version lies, or as the draft does.
func newVersion(v *snapshot.View, last written, d *draft) *version {
	var parts []snapshot.Part
	if last.layout != nil {
		parts = make([]snapshot.Part, 0, len(last.layout.regions)+8)
	}
	for p := range v.Parts() {
		parts = append(parts, p)
	}
	n := &version{}
	switch {
	case d != nil && d.begins(parts):
	case v.Bytes() < patchBytes:
		n.layout = newLayout(parts, exact)
	case last.layout != nil && last.layout.bytes >= patchBytes:
		n.layout = last.layout.next(parts, v.Bytes())
	}
	if n.layout == nil {
		n.layout = newLayout(parts, roomy)
	}
	return n
}

// writeData puts the version on disk under the temporary name, synced, in the cheapest of the ways that are safe for
// readers. release is to be called when it has its own name, or has failed.
func (f *File) writeData(n *version, last written, old spareFile) (info os.FileInfo, release func(), err error) {
	if f.draft != nil {
		if d := f.draft; d.begins(n.parts) {
			f.draft = nil
			info, err = d.finish(n)
			return info, func() {}, err
		}
		f.dropDraft()
	}
	patchable := n.bytes >= patchBytes && last.layout != nil && last.layout.bytes >= patchBytes && last.untouched(f.path)
	if patchable && old.layout != nil && n.near(old.layout) {
		if file := openSpare(f.dataTmp(), old.file, f.path); file != nil {
			if info, err = n.patch(file, old.layout, spareAlign, last); err != nil {
				file.Close()
				return nil, nil, err
			}
			return info, func() { file.Close() }, nil // and with it the lease ends
		}
	}
	info, err = writeTmp(f.dataTmp(), f.path, func(file *os.File) (err error) {
		if patchable && cloneFile(file, f.path) {
			_, err = n.patch(file, last.layout, 1, last)
			return err
		}
		n.wrote = n.bytes
		w := newWhole(file, n.bytes >= patchBytes, n.complete || n.bytes <= completeBytes)
		n.digest = w.digest
		return w.finish(n.layout)
	})
	return info, func() {}, err
}

// near says whether less than half of the version differs from a file with the layout old. Of more, one sequential write is
// faster, which lets go of the rows as it goes.
func (n *version) near(old *layout) bool {
	differs := int64(0)
	for _, s := range n.differences(old, 1) {
		differs += s.to - s.from
	}
	return differs < n.bytes/2
}

// patch makes the version of file, which has the layout old, and syncs it. Its digest comes of the last version's.
func (n *version) patch(file *os.File, old *layout, align int64, last written) (os.FileInfo, error) {
	hashed := make(chan error, 1)
	n.digest = last.digest
	go func() { hashed <- n.hash(last.layout) }()
	err := n.writeSpans(file, n.differences(old, align))
	if err == nil {
		err = file.Truncate(n.bytes)
	}
	if err == nil { // the clock of the kernel may stand still between two versions that one inode has
		now := unix.NsecToTimeval(time.Now().UnixNano())
		err = os.NewSyscallError("futimes", unix.Futimes(int(file.Fd()), []unix.Timeval{now, now}))
	}
	if err == nil {
		err = file.Sync()
	}
	if herr := <-hashed; err == nil {
		err = herr
	}
	if err != nil {
		return nil, err
	}
	return file.Stat()
}

// hash makes the digest of a file with the layout old that of the version.
func (n *version) hash(old *layout) error {
	d, scratch := n.digest, []byte(nil)
	spans, first := n.differences(old, blockBytes), old.bytes
	if len(spans) > 0 {
		first = spans[0].from
	}
	from := d.whole.rewind(min(first, n.bytes))
	complete := n.complete || n.bytes-from <= completeBytes
	if complete {
		if err := n.walk(&scratch, from, func(b []byte) error {
			d.whole.Write(b)
			return nil
		}); err != nil {
			return err
		}
	}
	switch {
	case d.blocks == nil && complete:
		return nil
	case d.blocks == nil: // once, for all that come
		d.blocks, spans = newBlocks(), []span{{0, n.bytes}}
	}
	d.blocks.resize(n.bytes)
	block := make([]byte, blockBytes)
	for _, s := range spans {
		for ; s.from < min(s.to, n.bytes); s.from += blockBytes {
			b := block[:min(blockBytes, n.bytes-s.from)]
			if err := n.readAt(&scratch, b, s.from); err != nil {
				return err
			}
			d.blocks.set(s.from, b)
		}
	}
	return nil
}

func (n *version) writeSpans(file *os.File, spans []span) error {
	if len(spans) == 0 {
		return nil
	}
	buf, scratch := alignedBuffer(1<<20), []byte(nil)
	for _, s := range spans {
		for s.from < s.to {
			p := buf[:min(int64(len(buf)), s.to-s.from)]
			if err := n.readAt(&scratch, p, s.from); err != nil {
				return err
			}
			if _, err := file.WriteAt(p, s.from); err != nil {
				return err
			}
			s.from += int64(len(p))
			n.wrote += int64(len(p))
		}
	}
	return nil
}

// replaceData gives the file under the temporary name its own. What was there before becomes the spare, if it is the
// last version of a large file; else it goes.
func (f *File) replaceData(n *version, last written) (spareFile, error) {
	if n.bytes >= patchBytes && last.layout != nil && last.layout.bytes >= patchBytes && last.untouched(f.path) {
		if done, err := exchange(f.dataTmp(), f.path); err != nil {
			return spareFile{}, err
		} else if done {
			return spareFile{last.layout, last.file}, nil
		}
	}
	return spareFile{}, os.Rename(f.dataTmp(), f.path)
}
