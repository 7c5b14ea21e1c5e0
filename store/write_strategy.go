package store

import (
	"io"
	"os"

	"capture/snapshot"
	"capture/store/placement"
)

// patchFrom is the size in bytes from which a file is patched. A smaller one is written whole in a few milliseconds; it has no
// padding and leaves no shadow file.
var patchFrom int64 = 4 << 20

// pendingVersion is a version of the file on its way to the disk.
type pendingVersion struct {
	content
	rows         []int32 // number of rows in each region
	complete     bool    // whether the manifest must have the SHA-256 of the whole file, however long that takes
	digest       *digest // set by writePending
	bytesWritten int64   // set by writePending
	patched      bool    // set by writePending
}

// newPendingVersion places the rows of v: as the file that WriteAhead has begun has them, if temp is one and starts with v;
// else near to where the last version has them; else from scratch.
func newPendingVersion(v *snapshot.View, last written, temp io.Closer) *pendingVersion {
	var parts []snapshot.Part
	if last.layout != nil {
		parts = make([]snapshot.Part, 0, len(last.layout.Regions)+8)
	}
	for p := range v.Parts() {
		parts = append(parts, p)
	}
	p := &pendingVersion{content: content{parts: parts}, rows: make([]int32, len(parts))}
	for i, part := range parts {
		p.rows[i] = int32(part.Rows())
	}
	list := placementParts(parts)
	pre, _ := temp.(*prewrite)
	switch {
	case pre != nil && pre.isStartOf(parts):
	case v.Bytes() < patchFrom:
		p.Layout = placement.New(list, placement.FillFactor100)
	case last.isLarge():
		p.Layout = last.layout.Next(list, patchFrom)
	}
	if p.Layout == nil {
		p.Layout = placement.New(list, placement.FillFactor97)
	}
	return p
}

// writePending writes the version under the temporary name, synced, by the cheapest of the ways that are safe for readers:
//
//	finish the prewrite      after a copy of the table, if WriteAhead has written the start of this very version
//	patch the shadow file    if there is one and nobody has it open (inplace_linux.go says what that takes)
//	patch a clone            if the file system can share blocks between files (FICLONE)
//	write the whole file     otherwise, and if half of it or more changes
func (f *File) writePending(p *pendingVersion, last written) error {
	if pre, ok := f.temp.use.(*prewrite); ok && pre.isStartOf(p.parts) {
		return pre.finish(p)
	}
	patchable := isPatchable(last, p, f.dataPath)
	if s, ok := f.temp.use.(*shadow); ok && patchable && p.isWorthPatching(s.layout) {
		if s.file = openShadow(f.dataTmp(), f.temp.info, f.dataPath); s.file != nil {
			return p.patch(s.file, s.layout, directAlign, last)
		}
	}
	file, err := f.temp.create()
	if err != nil {
		return err
	}
	if patchable && cloneFile(file, f.dataPath) {
		err = p.patch(file, last.layout, 1, last)
	} else {
		err = p.writeWhole(file)
	}
	if err != nil {
		return err
	}
	return syncAndClose(file)
}

// isPatchable reports whether the file at path is the last version and p may be made of it: whether both are large.
func isPatchable(last written, p *pendingVersion, path string) bool {
	return p.Bytes >= patchFrom && last.isLarge() && last.isOnDisk(path)
}

func (w *written) isLarge() bool { return w.layout != nil && w.layout.Bytes >= patchFrom }

// isWorthPatching reports whether less than half of the version differs from a file with the layout old. If more does, one
// sequential write is faster, and it releases the rows as it goes.
func (p *pendingVersion) isWorthPatching(old *placement.Layout) bool {
	changed := int64(0)
	for _, s := range p.ChangedSpans(old, 1) {
		changed += s.To - s.From
	}
	return changed < p.Bytes/2
}

// retire returns the shadow file that the last version, the one at path, becomes when p replaces it, and its identity. It
// returns nil if the next version will not be made of it.
func retire(last written, p *pendingVersion, path string) (*shadow, os.FileInfo) {
	if !isPatchable(last, p, path) {
		return nil, nil
	}
	return &shadow{layout: last.layout}, last.file
}

// writeWhole writes the version from start to end.
func (p *pendingVersion) writeWhole(file *os.File) error {
	w := newSequentialWriter(file, p.Bytes >= patchFrom, p.complete || p.Bytes <= hashPerWrite)
	p.digest, p.bytesWritten = w.digest, p.Bytes
	return w.finish(&p.content)
}
