package store

import (
	"errors"
	"io"
	"iter"
	"os"
	"time"

	"capture/snapshot"
	"capture/store/disk"
	"capture/store/loss"
	"capture/store/manifest"
	"capture/store/placement"
)

// The functions below decide whether the current file must be kept before a Write replaces it (invariant 9, docs/design.md).
// The cost depends on how much has changed, not on the size of the table. A View consists of Parts, which are groups of
// consecutive rows. A row can be lost only if the new View lacks the row's Part. If the Parts that the View lacks have, in
// total, too few rows for a loss, nothing is read. Otherwise the file's regions with these Parts are read and compared with
// the View's new Parts. A Write compares the whole file only in three cases: the run has not loaded the file and this is its
// first Write, the last Write has failed, or another program has touched the file.

// stateToKeep decides whether the current file must be kept before v replaces it. If so, it returns the manifest of the kept
// state, whose Kept field has the reason. If not, it returns nil.
func (f *File) stateToKeep(v *snapshot.View, last *written) (*manifest.Manifest, error) {
	first, foreign := !f.hasWritten, f.existing.foreign
	info, err := os.Lstat(f.dataPath)
	switch {
	case disk.IsMissing(err), err == nil && !info.Mode().IsRegular():
		return nil, nil // somebody has removed the file, perhaps after Open, so there is nothing to keep
	case err != nil:
		return nil, err
	case last.file != nil && isSameVersion(info, last.file):
		return f.compareParts(v, last), nil
	case f.existing.quarantine != "" && last.file == nil: // with last, the number of rows that v replaces is known; see below
		return f.judgeDamaged(v), nil
	}
	m, ok := f.standingManifest(last, info)
	if !ok {
		return nil, nil
	}
	c := compareFile(f.dataPath, &m, v)
	replaced := 0 // 0 means that the number is not known, for example after a failed Write
	if last.file != nil {
		_, replaced, _ = diffParts(v, last)
	}
	m.Kept = f.newKept(&m, c, v, replaced)
	m.Kept.Other = first && isOther(&m, v) || foreign && !c.IsEqual()
	if m.Kept.Loss == nil && !((first || foreign) && (m.Kept.Other || !c.IsEqual() && !f.kept.IsOff())) {
		return nil, nil
	}
	return &m, nil
}

// newKept returns the Kept field of m, the manifest of a kept state. c is the comparison of the current file with v, and
// replaced is the number of the file's rows that v replaces, or 0 if this number is not known.
func (f *File) newKept(m *manifest.Manifest, c *loss.Comparison, v *snapshot.View, replaced int) *manifest.Kept {
	k := &manifest.Kept{Loss: c.Loss(v, f.rowCounts.Highest(time.Now()), replaced), Damaged: c.Damage()}
	if k.Loss != nil && k.Loss.RowsChanged > 0 {
		k.Loss.RepairOf = f.kept.RepairedBy(m, k.Loss, v)
	}
	return k
}

// standingManifest returns the manifest of the current file, which info describes. It reports false if the manifest is not known.
func (f *File) standingManifest(last *written, info os.FileInfo) (manifest.Manifest, bool) {
	if f.existing.foreign {
		return f.existing.manifest, f.existing.intact
	}
	if last.file != nil {
		return last.manifest, true // no other manifest can describe the file, even if somebody has touched the file since the last Write
	}
	if !f.hasWritten {
		return f.existing.manifest, f.existing.intact
	}
	// The last Write has failed. If it failed between its two renames, ensureLocked has done the second rename since, so the
	// manifest on disk describes the file.
	m, err := manifest.ReadAt(f.manifestPath)
	return m, err == nil && m.Bytes == info.Size()
}

// judgeDamaged is called if the current file is damaged and will be quarantined. It decides whether the file is also kept as
// the state before a loss. The file is kept if its manifest has many more rows than v, or columns that v lacks. judgeDamaged
// then returns the manifest of the kept state, and otherwise nil.
func (f *File) judgeDamaged(v *snapshot.View) *manifest.Manifest {
	m, err := manifest.ReadAt(f.manifestPath)
	if err != nil {
		return nil
	}
	c := loss.NewComparison(&m, v.Shape())
	c.Fail(errors.New("it does not match its manifest"))
	m.Kept = f.newKept(&m, c, v, 0)
	m.Kept.Other = isOther(&m, v)
	if m.Kept.Loss == nil {
		return nil
	}
	return &m
}

// compareParts compares v with the last written version, and returns the manifest of the last version if that version must
// be kept. Otherwise it returns nil. The caller has checked that the file is unchanged since it was written. Therefore only
// the Parts that differ need to be compared.
func (f *File) compareParts(v *snapshot.View, last *written) *manifest.Manifest {
	m := last.manifest
	c := loss.NewComparison(&m, v.Shape())
	gone, goneRows, added := diffParts(v, last)
	if loss.MayLose(goneRows, m.Rows) {
		compareRegions(c, f.dataPath, gone, added)
	}
	m.Kept = f.newKept(&m, c, v, goneRows)
	m.Kept.Other = isOther(&m, v)
	// If this run has not written the file, an earlier run wrote it, and this run has loaded its rows. Such a file is kept if
	// any row differs and the policy keeps ordinary states.
	differs := !f.hasWritten && len(gone)+len(added) > 0 && !f.kept.IsOff()
	if m.Kept.Loss == nil && !m.Kept.Other && !differs {
		return nil
	}
	return &m
}

// compareRegions compares the rows in the regions of the file at path with the rows of parts.
func compareRegions(c *loss.Comparison, path string, regions []placement.Region, parts []snapshot.Part) {
	file, err := disk.OpenRegular(path)
	if err != nil {
		c.Fail(err)
		return
	}
	defer file.Close()
	var readers []io.Reader
	for i := 0; i < len(regions); {
		from, end := regions[i].Off, regions[i].End()
		for i++; i < len(regions) && regions[i].Off == end; i++ {
			end = regions[i].End()
		}
		readers = append(readers, io.NewSectionReader(file, from, end-from))
	}
	c.Run(io.MultiReader(readers...), rowsOf(parts))
}

// compareFile compares the whole file at path with v.
func compareFile(path string, m *manifest.Manifest, v *snapshot.View) *loss.Comparison {
	c := loss.NewComparison(m, v.Shape())
	file, err := disk.OpenRegular(path)
	if err != nil {
		c.Fail(err)
		return c
	}
	defer file.Close()
	c.Run(file, v.From(nil))
	return c
}

// diffParts compares v with the last version. gone has the regions of the Parts that are no longer in v. goneRows is the number
// of rows in these regions. added has the Parts of v that are not in the last version.
func diffParts(v *snapshot.View, last *written) (gone []placement.Region, goneRows int, added []snapshot.Part) {
	regions := last.layout.Regions
	head, isHead := 0, true
	for p := range v.Parts() {
		if isHead = isHead && head < len(regions) && regions[head].PartID == p.ID(); isHead {
			head++
		} else {
			added = append(added, p)
		}
	}
	tail := 0
	for tail < len(added) && tail < len(regions)-head && regions[len(regions)-1-tail].PartID == added[len(added)-1-tail].ID() {
		tail++
	}
	added = added[:len(added)-tail]
	regions = regions[head : len(regions)-tail]
	ids := make(map[uint64]bool, len(added))
	for _, p := range added {
		ids[p.ID()] = true
	}
	kept := map[uint64]bool{}
	for i, r := range regions {
		if ids[r.PartID] {
			kept[r.PartID] = true
			continue
		}
		gone = append(gone, r)
		goneRows += int(last.rows[head+i])
	}
	if len(kept) > 0 {
		rest := added[:0]
		for _, p := range added {
			if !kept[p.ID()] {
				rest = append(rest, p)
			}
		}
		added = rest
	}
	return gone, goneRows, added
}

// rowsOf yields the rows of parts.
func rowsOf(parts []snapshot.Part) iter.Seq2[snapshot.Row, error] {
	return func(yield func(snapshot.Row, error) bool) {
		for _, p := range parts {
			for row, err := range p.All() {
				if !yield(row, err) || err != nil {
					return
				}
			}
		}
	}
}
