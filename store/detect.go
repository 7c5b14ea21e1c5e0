package store

import (
	"io"
	"iter"
	"os"
	"time"

	"capture/snapshot"
	"capture/store/placement"
)

// Before a Write replaces the standing file, it decides whether the file has to be kept (invariant 9, docs/design.md). That costs what
// has changed, not the table: rows can be lost only from Parts that the new View does not have. If these hold too few rows for a loss,
// nothing is read. Otherwise their regions are read back from the file and compared with the Parts that are new. Only the first Write
// of a run, and one after an error, compare the whole file.

// A loss is more than one row in lossShare, and lossLeast rows at least.
const (
	lossShare  = 10
	lossLeast  = 10
	lossWindow = time.Hour // within which a number of rows counts as the highest
)

// keepReason is why the standing file is kept before it is replaced.
type keepReason struct {
	manifest Manifest // of the standing file
	loss     *Loss    // nil for an ordinary state
	other    bool     // whether it is a state of another table, database or cluster
	damaged  string   // how the file is known to be damaged; "" if it is not
}

// findKeepReason returns why the standing file is to be kept before v replaces it, or nil.
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

// standingManifest returns the manifest of the file on disk.
func (f *File) standingManifest(last *written) (Manifest, bool) {
	if last.file != nil {
		return last.manifest, true // somebody has touched the file
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

// judgeDamaged returns a reason if the file does not match its manifest, and its manifest has many more rows than v. The file is
// quarantined in any case.
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

// isOther reports whether the file that m describes is of another table, database or cluster than v.
func isOther(m *Manifest, v *snapshot.View) bool {
	shape, origin := v.Shape(), v.Origin()
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	return differ(m.SystemID, origin.SystemID) || differ(m.Database, origin.Database) ||
		m.Table != TableName{Schema: shape.Schema, Name: shape.Table} || m.TableOID != 0 && shape.OID != 0 && m.TableOID != shape.OID
}

// compareParts returns why the last version is to be kept, which is on disk as it was written.
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

// mayLose reports whether so many rows of a file may be enough for a loss.
func mayLose(n, rows int) bool {
	return n > 0 && (n >= rows || n >= lossLeast && n > rows/lossShare)
}

// diffParts returns the regions of the last version whose Parts v does not have, the number of their rows, and v's Parts that the last
// version does not have.
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

// runRegions compares the rows in regions of the file at path with those of parts.
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

// judge returns the loss that replacing the file by v would be, or nil. err is why the comparison c is not complete; then the numbers of
// rows decide. c may be nil.
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

// rowCounts has the numbers of rows of the last hour, as far as they may be the highest: each is lower than the one before.
type rowCounts []rowCount

type rowCount struct {
	at   time.Time
	rows int
}

func (c *rowCounts) add(at time.Time, rows int) {
	list := *c
	for len(list) > 0 && list[len(list)-1].rows <= rows {
		list = list[:len(list)-1]
	}
	list = append(list, rowCount{at, rows})
	for len(list) > 1 && at.Sub(list[1].at) >= lossWindow { // the first one counts until the second one was written
		list = list[1:]
	}
	*c = list
}

// highest returns the highest number of rows within the hour before now.
func (c rowCounts) highest(now time.Time) int {
	for i, count := range c {
		if i == len(c)-1 || now.Sub(c[i+1].at) < lossWindow {
			return count.rows
		}
	}
	return 0
}
