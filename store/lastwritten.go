package store

import (
	"os"
	"weak"

	"capture/snapshot"
	"capture/store/manifest"
	"capture/store/placement"
)

// written describes what a successful Write left on disk. The zero value means that nothing is known to be on disk.
type written struct {
	view     weak.Pointer[snapshot.View] // View that was written; weak, because a strong pointer would keep its rows in memory
	rowBytes int64                       // length of the View's rows in bytes, as View.Bytes returned it
	manifest manifest.Manifest
	file     os.FileInfo // identity of the file under its final name, right after it was written
	layout   *placement.Layout
	rows     []int32 // number of rows in each of the layout's regions
	patched  bool    // whether the file was patched and has not been read back since
	digest   *digest // digest of the file; a patch to the next version updates this digest in place
}

// hasRowsOf reports whether v has the rows that were written, and comes from the same table. It also returns true for a later
// View with the same rows, for example if only the position has changed, or if capture has read the table again.
func (w *written) hasRowsOf(v *snapshot.View) bool {
	if w.file == nil {
		return false
	}
	if w.view == weak.Make(v) {
		return true
	}
	if w.manifest.Rows != v.Rows() || w.rowBytes != v.Bytes() || isOther(&w.manifest, v) {
		return false
	}
	i := 0
	for p := range v.Parts() {
		if i == len(w.layout.Regions) || w.layout.Regions[i].PartID != p.ID() {
			return false
		}
		i++
	}
	return i == len(w.layout.Regions)
}

// isOnDisk reports whether the file at path is still the file that was written. Like openShadow and the ETag of a download,
// it identifies a version by inode, size and modification time. Two versions may share an inode and be written within one
// tick of the kernel's clock, so patch sets the time explicitly.
func (w *written) isOnDisk(path string) bool {
	if w.file == nil {
		return false
	}
	info, err := os.Lstat(path)
	return err == nil && isSameVersion(info, w.file)
}

// isSameVersion reports whether a and b are the same version of the same file.
func isSameVersion(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// isOther reports whether v and the file that m describes come from different tables, databases or clusters.
func isOther(m *manifest.Manifest, v *snapshot.View) bool {
	shape, origin := v.Shape(), v.Origin()
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	return differ(m.SystemID, origin.SystemID) || differ(m.Database, origin.Database) ||
		m.Table != manifest.TableName{Schema: shape.Schema, Name: shape.Table} || m.TableOID != 0 && shape.OID != 0 && m.TableOID != shape.OID
}
