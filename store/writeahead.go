package store

import (
	"context"

	"capture/snapshot"
	"capture/store/placement"
)

// WriteAhead writes a part of the file while a table is still being copied, so that the next [File.Write] has less to do. parts
// are the first Parts of the View that Write will get; rows are still being added to the last one. WriteAhead returns when it
// has written all Parts but the last, or when ctx ends. It reports whether it may be called again with more Parts. If parts is
// empty, it removes what it has written and reports false.
//
// Readers see no change. After an error WriteAhead reports false. It does not return the error, because the next Write will
// probably meet it, too.
func (f *File) WriteAhead(ctx context.Context, parts []snapshot.Part) bool {
	if len(parts) == 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.discardPrewrite()
		return false
	}
	c := &content{Layout: placement.New(placementParts(parts), placement.FillFactor97), parts: parts}
	for ctx.Err() == nil {
		if done, err := f.extendPrewrite(c); err != nil {
			return false
		} else if done {
			break
		}
	}
	return true
}

// extendPrewrite writes one step, and reports whether all Parts but the last are written.
func (f *File) extendPrewrite(c *content) (done bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() {
		if err != nil {
			f.discardPrewrite()
		}
	}()
	if err := f.ensureLocked(); err != nil {
		return false, err
	}
	pre, ok := f.temp.use.(*prewrite)
	if !ok {
		file, err := f.temp.create()
		if err != nil {
			return false, err
		}
		pre = &prewrite{sequentialWriter: newSequentialWriter(file, true, true)}
		f.temp.use = pre
	}
	return pre.extend(c)
}

func (f *File) discardPrewrite() {
	if _, ok := f.temp.use.(*prewrite); ok {
		f.temp.discard()
	}
}
