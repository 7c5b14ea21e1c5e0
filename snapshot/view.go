package snapshot

import (
	"iter"
	"time"

	"github.com/jackc/pglogrepl"

	"capture/snapshot/rowjson"
)

// View is one committed state of a table. It never changes.
type View struct {
	shape    *rowjson.Shape
	origin   Origin
	position Position
	horizon  *Horizon
	version  uint64
	rows     int
	bytes    int64
	groups   []*group
	omitted  omittedRows
}

// Origin describes where a View's rows come from. The manifest records the Origin.
type Origin struct {
	Source        string // "logical", "notify", "poll", or "export" for a copy made without a daemon
	Database      string // name of the database
	SystemID      string // system identifier of the cluster, as IDENTIFY_SYSTEM returns it; "" if the user may not read it
	Timeline      int    // timeline of the server's WAL; 0 if the user may not read it
	ServerVersion string // version of the server, as SHOW server_version returns it
}

// Position identifies the committed state of the database that a View shows.
type Position struct {
	LSN        pglogrepl.LSN // position in the WAL up to which all commits are in the View; 0 if the source does not know it
	CommitTime time.Time     // server time of the last commit in the View; zero if the source does not know it
}

// Shape returns the table's shape in this state.
func (v *View) Shape() *rowjson.Shape { return v.shape }

// Origin returns where the rows come from.
func (v *View) Origin() Origin { return v.origin }

// Position returns the position of the database state that the View shows.
func (v *View) Position() Position { return v.position }

// Horizon returns the horizon of the View's rows, or nil if nothing is known about the age of the rows.
func (v *View) Horizon() *Horizon { return v.horizon }

// Version counts the commits of the Table up to this View. Of two Views of a Table, the View of the later commit has the higher
// version.
func (v *View) Version() uint64 { return v.version }

// Rows returns the number of rows.
func (v *View) Rows() int { return v.rows }

// Bytes returns the number of bytes that WriteTo writes.
func (v *View) Bytes() int64 { return v.bytes }

// Row is one row of a View. Its bytes must not be changed.
type Row struct {
	Key  rowjson.Key
	Line []byte // "{…}", without comma and newline
}

// Get returns the line of the row with the given key ("{…}", without comma and newline), or nil if there is no such row. The
// caller must not change the line. Get returns an error if it cannot read the row back from the spill file; see
// [Table.LimitMemory].
func (v *View) Get(key rowjson.Key) ([]byte, error) {
	l := findLeaf(v.groups, key)
	if l == nil {
		return nil, nil
	}
	p, err := l.readPage()
	if err != nil {
		return nil, err
	}
	if i, ok := p.findRow(key); ok {
		return p.line(i), nil
	}
	return nil, nil
}

// CountKeys returns how many of the keys have a row. From the spill file it reads only the keys of a page, not the lines. If
// the given keys are in order, it reads each page at most once. It returns an error if a page cannot be read back.
func (v *View) CountKeys(keys []rowjson.Key) (n int, err error) {
	var last *leaf
	var p *page // page of the leaf in the variable last; the page may lack its lines
	for _, key := range keys {
		l := findLeaf(v.groups, key)
		if l == nil {
			return 0, nil
		}
		if l != last {
			if p = l.page.Load(); p == nil {
				if p, err = l.readKeys(); err != nil {
					return 0, err
				}
			}
			last = l
		}
		if _, found := p.findRow(key); found {
			n++
		}
	}
	return n, nil
}

// From yields the rows that come after the given key, in order. If the given key is nil, From yields all rows. If rows cannot
// be read back from the spill file, From yields the error as the last pair.
func (v *View) From(after rowjson.Key) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		gi, li := v.seek(after)
		for sought := after != nil; gi < len(v.groups); gi, li = gi+1, 0 {
			for g := v.groups[gi]; li < len(g.leaves); li++ {
				p, err := g.leaves[li].readPage()
				if err != nil {
					yield(Row{}, err)
					return
				}
				i, found := 0, false
				if sought {
					if i, found = p.findRow(after); found {
						i++
					}
					sought = false
				}
				for ; i < len(p.entries); i++ {
					if !yield(Row{p.key(i), p.line(i)}, nil) {
						return
					}
				}
			}
		}
	}
}

// Before yields the rows that come before the given key, in descending order. If the given key is nil, Before yields all rows.
// If rows cannot be read back from the spill file, Before yields the error as the last pair.
func (v *View) Before(before rowjson.Key) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		if len(v.groups) == 0 {
			return
		}
		gi := len(v.groups) - 1
		li := len(v.groups[gi].leaves) - 1
		if before != nil {
			gi, li = v.seek(before)
		}
		for sought := before != nil; ; sought = false {
			p, err := v.groups[gi].leaves[li].readPage()
			if err != nil {
				yield(Row{}, err)
				return
			}
			i := len(p.entries)
			if sought {
				i, _ = p.findRow(before)
			}
			for ; i > 0; i-- {
				if !yield(Row{p.key(i - 1), p.line(i - 1)}, nil) {
					return
				}
			}
			if li--; li < 0 {
				if gi--; gi < 0 {
					return
				}
				li = len(v.groups[gi].leaves) - 1
			}
		}
	}
}

// seek returns the indexes of the group and leaf whose range of keys contains key. For a nil key, it returns 0 and 0.
func (v *View) seek(key rowjson.Key) (gi, li int) {
	if key == nil || len(v.groups) == 0 {
		return 0, 0
	}
	gi = findGroup(v.groups, key)
	return gi, v.groups[gi].findLeaf(key)
}
