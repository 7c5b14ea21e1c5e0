package store

import (
	"context"
	"errors"
	"os"

	"capture/snapshot"
)

// draft is the start of a version that is yet to come, under the temporary name: what a copy of a large table has read is
// written while it goes on reading. Nobody is shown it.
type draft struct {
	*whole
	regions   []region // that it has; the last one may be cut off
	rewritten int64    // bytes that were written in vain
}

var errVain = errors.New("the rows come in another order than that of their keys")

const (
	draftStep = 8 << 20 // bytes after which a Write may come between
	vainShare = 4       // a draft of which more than such a share was in vain is none
)

// WriteAhead writes ahead what the next [File.Write] will need: parts are the first ones of its View, as it seems, and the last
// of them is still growing. It returns whether to go on with it, and where ctx ends returns before all is written. With no
// parts it takes back what it wrote.
//
// It changes nothing that a reader sees. An error ends it, and is the next Write's to tell.
func (f *File) WriteAhead(ctx context.Context, parts []snapshot.Part) bool {
	if len(parts) == 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.dropDraft()
		return false
	}
	l := newLayout(parts, roomy)
	for ctx.Err() == nil {
		if done, err := f.prepare(l); err != nil {
			return false
		} else if done {
			break
		}
	}
	return true
}

// prepare does a step of it, and says whether that was the last one.
func (f *File) prepare(l *layout) (done bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() {
		if err != nil {
			f.dropDraft()
		}
	}()
	if f.closed {
		return false, os.ErrClosed
	}
	if err := f.claim(); err != nil {
		return false, err
	}
	if f.draft == nil {
		f.dropSpare() // it has the name
		file, err := createTmp(f.dataTmp(), f.path)
		if err != nil {
			return false, err
		}
		f.draft = &draft{whole: newWhole(file, true, true)}
	}
	return f.draft.extend(l)
}

// extend goes on as l says, which has the newest state of what is being copied.
func (d *draft) extend(l *layout) (done bool, err error) {
	last := len(l.regions) - 1 // which is still growing
	same := 0
	for same < min(len(d.regions), last) && d.regions[same] == l.regions[same] {
		same++
	}
	if same < len(d.regions) {
		before := d.end()
		d.back(l.start(same))
		if d.rewritten += before - d.end(); d.rewritten > draftStep+d.end()/vainShare {
			return false, errVain
		}
	}
	to := same
	for n := int64(0); to < last && n < draftStep; to++ {
		n += l.length(to)
	}
	d.regions = append(d.regions[:same], l.regions[same:to]...)
	return to == last, d.add(l, to)
}

// begins says whether the draft is a good part of a version of these parts.
func (d *draft) begins(parts []snapshot.Part) bool {
	same := 0
	for same < min(len(d.regions), len(parts)) && d.regions[same].part == parts[same].ID() {
		same++
	}
	return same > 0 && same >= len(d.regions)/2
}

// finish makes the whole version of it, which lies as the draft does.
func (d *draft) finish(n *version) (os.FileInfo, error) {
	defer d.file.Close()
	same := 0
	for same < min(len(d.regions), len(n.regions)) && d.regions[same] == n.regions[same] {
		same++
	}
	d.back(n.start(min(same, n.count()-1)))
	n.wrote, n.digest = n.bytes, d.digest
	if err := d.whole.finish(n.layout); err != nil {
		return nil, err
	}
	if err := d.file.Truncate(n.bytes); err != nil { // a draft may have been longer
		return nil, err
	}
	if err := d.file.Sync(); err != nil {
		return nil, err
	}
	info, err := d.file.Stat()
	if err != nil {
		return nil, err
	}
	return info, d.file.Close()
}

// dropDraft removes the draft, if there is one.
func (f *File) dropDraft() {
	if f.draft == nil {
		return
	}
	if info, err := f.draft.file.Stat(); err == nil {
		f.removeTmp(info)
	}
	f.forgetDraft()
}

// forgetDraft leaves its file alone: the name may be another's.
func (f *File) forgetDraft() {
	if f.draft != nil {
		f.draft.file.Close()
		f.draft = nil
	}
}
