package store

import (
	"io"
	"os"

	"capture/snapshot"
	"capture/store/disk"
	"capture/store/placement"
)

// patchFrom is the smallest size in bytes of a file that is patched. A smaller file is written whole, which takes a few
// milliseconds. It has no padding and leaves no shadow file.
var patchFrom int64 = 4 << 20

// pendingVersion is a version of the file that is being written to disk.
type pendingVersion struct {
	content
	rows         []int32 // number of rows in each region
	complete     bool    // whether the manifest needs the SHA-256 of the whole file, however long hashing takes
	digest       *digest // digest of the version, set by writePending
	bytesWritten int64   // number of bytes written to disk, set by writePending
	patched      bool    // whether a file was patched, set by writePending
}

// newPendingVersion places the rows of v in a file. If temp is a prewrite of the start of v, the rows get the places that
// they have in the prewrite. Otherwise, if v and the last version are large, the rows stay near their places in the last
// version. In all other cases, newPendingVersion places the rows without regard to the last version.
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

// writePending writes the version under the temporary name and syncs it. It chooses the first of these methods that applies:
//
//	finish the prewrite      after a copy of the table, if WriteAhead has written the start of this version
//	patch the shadow file    if there is one, nobody has it open (see patchinplace_linux.go), and less than half of it changes
//	patch a clone            if the file system can share blocks between files (FICLONE)
//	write the whole file     otherwise
func (f *File) writePending(p *pendingVersion, last written) error {
	if pre, ok := f.temp.use.(*prewrite); ok && pre.isStartOf(p.parts) {
		return pre.finish(p)
	}
	patchable := isPatchable(last, p, f.dataPath)
	if s, ok := f.temp.use.(*shadow); ok && patchable && p.isWorthPatching(s.layout) {
		if s.file = openShadow(f.dataTmp(), f.temp.info, f.dataPath); s.file != nil {
			return p.patch(s.file, s.layout, disk.DirectAlign, last)
		}
	}
	file, err := f.temp.create(f.standing.dataLike())
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
	return disk.SyncAndClose(file)
}

// isPatchable reports whether p can be made by patching the file at path: the file must be the last version, and both versions
// must be large.
func isPatchable(last written, p *pendingVersion, path string) bool {
	return p.Bytes >= patchFrom && last.isLarge() && last.isOnDisk(path)
}

func (w *written) isLarge() bool { return w.layout != nil && w.layout.Bytes >= patchFrom }

// isWorthPatching reports whether less than half of the version differs from the file that would be patched. old is the
// layout of that file. If more differs, one sequential write is faster, and it also releases the rows while it writes.
func (p *pendingVersion) isWorthPatching(old *placement.Layout) bool {
	changed := int64(0)
	for _, s := range p.ChangedSpans(old, 1) {
		changed += s.To - s.From
	}
	return changed < p.Bytes/2
}

// retire is called before p replaces the file at path, which then becomes the shadow file. It returns this shadow and the
// identity of the file. It returns nil if the file cannot serve as a shadow, for example because it is small or is not the
// last version.
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
