package store

import (
	"context"

	"capture/snapshot"
	"capture/store/placement"
)

// WriteAhead writes what the next [File.Write] will probably need, while a table is still being copied: parts are the first
// ones of the View to come, and rows are still being added to the last of them. It returns when all of them but the last are
// written, or when ctx ends, and reports whether to call it again with more. With no parts it removes what it has written.
//
// It changes nothing that a reader sees. After an error it reports false, and leaves the error to the next Write, which will
// have it too.
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

// extendPrewrite takes one step, and reports whether it was the last one.
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
