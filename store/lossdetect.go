package store

import (
	"io"
	"iter"
	"os"
	"time"

	"capture/snapshot"
	"capture/store/placement"
)

// Before a Write replaces the current file, it decides whether the file must be kept (invariant 9, docs/design.md). The cost
// depends on how much has changed, not on the size of the table: rows can be lost only from Parts of the file that the new View
// lacks. If these Parts have too few rows for a loss, nothing is read. Otherwise their regions are read from the file and
// compared with the View's new Parts. The whole file is compared only by the first Write of a run and by a Write after an error
// or after another program has touched the file.

// Losing all rows counts as a loss. So does losing at least lossLeast rows that are more than one row in lossShare.
const (
	lossShare  = 10
	lossLeast  = 10
	lossWindow = time.Hour // period whose highest number of rows is compared with the new number
)

// keepReason is the reason to keep the current file before it is replaced.
type keepReason struct {
	manifest Manifest // manifest of the current file
	loss     *Loss    // loss that replacing the file would cause; nil if there is none
	other    bool     // whether the new state comes from another table, database or cluster
	damaged  string   // known damage of the file; "" if there is none
}

// findKeepReason returns the reason to keep the current file before v replaces it, or nil if there is none.
func (f *File) findKeepReason(v *snapshot.View, last *written) *keepReason {
	first := !f.hasWritten
	switch {
	case last.file != nil && last.isOnDisk(f.dataPath):
		return f.compareParts(v, last)
	case f.existing.quarantine != "":
		return f.judgeDamaged(v)
	}
	m, ok := f.standingManifest(last)
	if !ok {
		return nil
	}
	r := &keepReason{manifest: m, other: first && isOther(&m, v)}
	c, err := compareFile(f.dataPath, &m, v)
	r.loss = f.judge(c, err, &m, v)
	if err != nil && err != errKeysDiffer {
		r.damaged = err.Error()
	}
	differs := err != nil || c.removed+c.added+c.changed > 0
	if r.loss == nil && !(first && (r.other || differs && !f.kept.isOff())) {
		return nil
	}
	return r
}

// standingManifest returns the manifest of the current file. It reports false if there is no file or its manifest is not known.
func (f *File) standingManifest(last *written) (Manifest, bool) {
	if last.file != nil {
		return last.manifest, true // the file is not as it was written, but no other manifest describes it
	}
	if !f.hasWritten {
		return f.existing.manifest, f.existing.intact
	}
	info, err := os.Lstat(f.dataPath) // a Write has failed, maybe between its two renames
	if err != nil {
		return Manifest{}, false
	}
	manifests, _ := readManifests(f.dataPath)
	for _, m := range manifests {
		if m.Bytes == info.Size() {
			return m, true
		}
	}
	return Manifest{}, false
}

// judgeDamaged is called if the current file is damaged and will be quarantined. If its manifest has many more rows than v, it
// returns the reason to keep the file also as the state before a loss; otherwise it returns nil.
func (f *File) judgeDamaged(v *snapshot.View) *keepReason {
	m, err := readManifest(f.manifestPath)
	if err != nil || !pathExists(f.dataPath) {
		return nil
	}
	if loss := f.judge(nil, errNotRow, &m, v); loss != nil {
		return &keepReason{manifest: m, loss: loss, other: isOther(&m, v), damaged: "it does not match its manifest"}
	}
	return nil
}

// isOther reports whether the file that m describes and v come from different tables, databases or clusters.
func isOther(m *Manifest, v *snapshot.View) bool {
	shape, origin := v.Shape(), v.Origin()
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	return differ(m.SystemID, origin.SystemID) || differ(m.Database, origin.Database) ||
		m.Table != TableName{Schema: shape.Schema, Name: shape.Table} || m.TableOID != 0 && shape.OID != 0 && m.TableOID != shape.OID
}

// compareParts returns the reason to keep the last version, or nil if there is none. The file must be unchanged since it was
// written, so only the Parts that differ need to be compared.
func (f *File) compareParts(v *snapshot.View, last *written) *keepReason {
	m := &last.manifest
	r := &keepReason{manifest: *m, other: isOther(m, v)}
	c, err := newComparison(m, v.Shape())
	gone, goneRows, added := diffParts(v, last)
	if err == nil && mayLose(goneRows, m.Rows) {
		err = c.runRegions(f.dataPath, gone, added)
	}
	if r.loss = f.judge(c, err, m, v); r.loss == nil && !r.other {
		return nil
	}
	if err != nil && err != errKeysDiffer {
		r.damaged = err.Error()
	}
	return r
}

// mayLose reports whether losing n of a file's rows counts as a loss.
func mayLose(n, rows int) bool {
	return n > 0 && (n >= rows || n >= lossLeast && n > rows/lossShare)
}

// diffParts returns the regions of the last version whose Parts v lacks, the number of rows in these regions, and v's Parts
// that the last version lacks.
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

// runRegions compares the rows in the regions of the file at path with the rows of parts.
func (c *comparison) runRegions(path string, regions []placement.Region, parts []snapshot.Part) error {
	file, err := os.Open(path)
	if err != nil {
		return err
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
	return c.run(io.MultiReader(readers...), rowsOf(parts))
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

// compareFile compares the whole file at path with v.
func compareFile(path string, m *Manifest, v *snapshot.View) (*comparison, error) {
	c, err := newComparison(m, v.Shape())
	if err != nil {
		return c, err
	}
	file, err := os.Open(path)
	if err != nil {
		return c, err
	}
	defer file.Close()
	return c, c.run(file, v.From(nil))
}

// judge returns the loss that would occur if v replaced the file that m describes, or nil if there is none. If err is not nil,
// it says why the comparison c is incomplete; then only the numbers of rows and the columns decide. c may be nil.
func (f *File) judge(c *comparison, err error, m *Manifest, v *snapshot.View) *Loss {
	loss := &Loss{Found: time.Now().UTC().Truncate(time.Microsecond), RowsBefore: m.Rows, RowsAfter: v.Rows()}
	fell := max(m.Rows-v.Rows(), 0)
	isLoss := false
	if c != nil {
		loss.Dropped = c.dropped()
		isLoss = len(loss.Dropped) > 0 && m.Rows > 0
	}
	loss.RowsLost = fell
	if err == nil {
		loss.RowsLost = max(c.removed, fell)
		loss.LostKeys = c.lost.keys
		if name, n := c.mostChanged(); n >= lossLeast && n > m.Rows/2 {
			loss.Column, loss.RowsChanged, isLoss = name, n, true
		}
	}
	if mayLose(loss.RowsLost, m.Rows) {
		isLoss = true
	}
	if highest := f.rowCounts.highest(time.Now()); highest > m.Rows && highest-v.Rows() >= lossLeast && highest-v.Rows() > highest/lossShare {
		loss.HourHighest, isLoss = highest, true
	}
	if !isLoss {
		return nil
	}
	return loss
}

// rowCounts holds numbers of rows within the last hour, oldest first. It holds only those that may become the highest of an
// hour, so each is lower than the one before it.
type rowCounts []rowCount

type rowCount struct {
	at   time.Time // time at which a file with this number of rows was written
	rows int
}

func (c *rowCounts) add(at time.Time, rows int) {
	list := *c
	for len(list) > 0 && list[len(list)-1].rows <= rows {
		list = list[:len(list)-1]
	}
	list = append(list, rowCount{at, rows})
	for len(list) > 1 && at.Sub(list[1].at) >= lossWindow { // the first one was valid until the second one was written
		list = list[1:]
	}
	*c = list
}

// highest returns the highest number of rows within the hour before now, or 0 if none is known.
func (c rowCounts) highest(now time.Time) int {
	for i, count := range c {
		if i == len(c)-1 || now.Sub(c[i+1].at) < lossWindow {
			return count.rows
		}
	}
	return 0
}
