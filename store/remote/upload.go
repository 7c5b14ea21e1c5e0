package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/klauspost/compress/gzip"

	"capture/store/manifest"
)

// Source is a state to upload.
type Source struct {
	// Manifest describes the state. If it has SHA256 or Blocks, Upload compares the data with them. If it lacks SHA256, Upload sets
	// SHA256 and Bytes from the data. A state that was already damaged when it was kept is not compared, and keeps its Bytes, so
	// that readers notice the damage.
	Manifest manifest.Manifest

	// Time is the time in the state's name.
	Time time.Time

	// Data writes the state's JSON.
	Data io.WriterTo
}

// partBytes is the length of a part in bytes. An upload needs memory for one part. S3 allows at most 10,000 parts. partBytes is
// a variable so that tests can upload less.
var partBytes = 8 << 20

// uploadNames is the number of names that Upload tries for a state. In each further name, the time is one second later.
// FindUpload looks for the same names.
const uploadNames = 20

// compressionLevel favors speed, so that compression leaves processor time to follow the table.
const compressionLevel = 3

// Upload compresses a state and uploads it. A state of more than partBytes is uploaded in parts, so a break of the network
// costs at most the part that was on its way. Upload is finished when the service has accepted the data and the manifest, each
// with its checksum. It returns the state, and its manifest as the service has it.
//
// If src.Manifest has the SHA-256 and the folder has an equal state under the same name, Upload returns the equal state. If the
// folder has another state under this name, the new state gets the time of the next second that is free.
func (f *Folder) Upload(ctx context.Context, src Source) (State, manifest.Manifest, error) {
	m := src.Manifest
	s := newState(m, src.Time)
	s.Cluster, s.folder = f.cluster, f.name
	for range uploadNames {
		s.URL = fmt.Sprintf("%s/%s/%s", f.Location, f.cluster, s.data()[len(f.name):])
		n, sum, err := f.uploadData(ctx, &s, src)
		if err == nil {
			s.Bytes = n
			if m.SHA256 == "" {
				m.SHA256 = sum.SHA256()
				// The manifest of a damaged state keeps its size and its blocks, so that readers notice the damage.
				if !isKnownDamaged(m) {
					m.Bytes, m.Blocks = sum.Bytes(), nil
				}
			}
			err = f.uploadManifest(ctx, &s, m)
		}
		if err == nil {
			return s, m, nil
		}
		if !errors.Is(err, errChanged) {
			return State{}, m, fmt.Errorf("upload %s: %w", s.URL, err)
		}
		if there, merr := f.Manifest(ctx, s); merr == nil && there.SHA256 == m.SHA256 && m.SHA256 != "" {
			return s, there, nil
		}
		s.Time = s.Time.Add(time.Second)
	}
	return State{}, m, fmt.Errorf("upload %s: the service says of %d names in a row that they are taken", s.URL, uploadNames)
}

// newState returns the state that m describes. It sets only the fields that are in the state's name. t is the time in the
// name.
func newState(m manifest.Manifest, t time.Time) State {
	s := State{Time: t.UTC().Truncate(time.Second), Rows: m.Rows, Loss: m.Kept != nil && m.Kept.Loss != nil}
	s.LSN, _ = pglogrepl.ParseLSN(m.LSN) // 0 if it is not known
	return s
}

// FindUpload returns the state that [Folder.Upload] has made from a source with this manifest and time, or nil if none of the
// given states is that one. Upload may have given the state a later time because names were taken. FindUpload compares only
// names. If several of the given states have a name that fits, FindUpload returns the earliest of them.
func FindUpload(states []State, m manifest.Manifest, t time.Time) *State {
	want := newState(m, t)
	var found *State
	for i := range states {
		s := &states[i]
		later := s.Time.Sub(want.Time)
		if s.Rows == want.Rows && s.LSN == want.LSN && s.Loss == want.Loss && later >= 0 && later < uploadNames*time.Second &&
			(found == nil || s.Time.Before(found.Time)) {
			found = s
		}
	}
	return found
}

// isKnownDamaged reports whether the state that m describes was already damaged when it was kept.
func isKnownDamaged(m manifest.Manifest) bool { return m.Kept != nil && m.Kept.Damaged != "" }

// uploadManifest writes the manifest of a state. From then on, the state exists.
func (f *Folder) uploadManifest(ctx context.Context, s *State, m manifest.Manifest) error {
	m.Horizon = nil // DropHorizon could later remove the horizon from the file's manifest, but not from this copy
	data, err := m.Encode()
	if err == nil {
		_, err = f.put(ctx, s.manifest(), data, f.ifAbsent())
	}
	return err
}

// ifAbsent returns the condition that a name is free, or no condition if the service does not support conditions.
func (f *Folder) ifAbsent() condition { return condition{absent: f.limits.Conditional} }

// uploadData writes the data of a state. It returns the compressed length of the data, and the digest of the JSON.
func (f *Folder) uploadData(ctx context.Context, s *State, src Source) (n int64, sum *manifest.Hasher, err error) {
	w := &partWriter{ctx: ctx, folder: f, name: s.data()}
	defer func() { w.close(err) }()
	sum = manifest.NewHasher(src.Manifest)
	z, err := gzip.NewWriterLevel(w, compressionLevel)
	if err != nil {
		return 0, nil, err
	}
	z.ModTime = src.Time
	if _, err = src.Data.WriteTo(io.MultiWriter(sum, z)); err != nil {
		return 0, nil, err
	}
	if err = z.Close(); err != nil {
		return 0, nil, err
	}
	if m := src.Manifest; (m.SHA256 != "" || m.Blocks != nil) && !isKnownDamaged(m) {
		if mismatch := sum.Mismatch(m); mismatch != "" {
			return 0, nil, &DamagedError{mismatch}
		}
	}
	return w.sent + int64(len(w.buf)), sum, w.finish()
}

// DamagedError means that a state is not what its manifest describes.
type DamagedError struct{ reason string }

func (e *DamagedError) Error() string { return "the state is damaged: " + e.reason }

// partWriter uploads what is written to it. It keeps up to partBytes in memory. It uploads an object in parts only if the
// object is longer than partBytes.
type partWriter struct {
	ctx    context.Context
	folder *Folder
	name   string
	buf    []byte
	upload upload // nil until the first part is sent
	parts  int    // number of parts that the service has accepted
	sent   int64  // length of these parts in bytes
	done   bool
}

func (w *partWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if len(w.buf) == partBytes {
			if err := w.sendPart(); err != nil {
				return 0, err
			}
		}
		fit := min(len(p), partBytes-len(w.buf))
		w.buf, p = append(w.buf, p[:fit]...), p[fit:]
	}
	return n, nil
}

// sendPart uploads the buffer as the next part. It repeats failed attempts within the location's patience.
func (w *partWriter) sendPart() error {
	if w.upload == nil {
		err := w.folder.retry(w.ctx, func() (err error) {
			w.upload, err = w.folder.service.create(w.ctx, w.name)
			return err
		})
		if err != nil {
			w.upload = nil
			return err
		}
	}
	err := w.folder.retry(w.ctx, func() error { return w.upload.part(w.ctx, w.parts+1, w.buf) })
	if err != nil {
		return err
	}
	w.parts++
	w.sent += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// finish uploads the rest and makes the object visible.
func (w *partWriter) finish() error {
	if w.upload == nil {
		_, err := w.folder.put(w.ctx, w.name, w.buf, w.folder.ifAbsent())
		w.done = err == nil
		return err
	}
	if len(w.buf) > 0 {
		if err := w.sendPart(); err != nil {
			return err
		}
	}
	c := w.folder.ifAbsent()
	err := w.commit(c)
	if clean := (*cleanError)(nil); c.absent && errors.As(err, &clean) && clean.unsupported {
		// The service supports conditions, but not at the end of an upload in parts. So check whether the name is free, then
		// commit without a condition.
		_, _, err = w.folder.read(w.ctx, w.name, 0)
		switch {
		case errors.Is(err, errMissing):
			err = w.commit(condition{})
		case err == nil, errors.Is(err, errTooLarge):
			err = errChanged
		}
	}
	w.done = err == nil
	return err
}

// commit makes the object visible if c is met. It repeats failed attempts within the location's patience.
func (w *partWriter) commit(c condition) error {
	failed := false
	return w.folder.retry(w.ctx, func() error {
		err := w.upload.commit(w.ctx, c)
		if err != nil && failed && w.isThere() {
			return nil // the previous attempt has succeeded, and only its response was lost
		}
		failed = err != nil
		return err
	})
}

// isThere reports whether the object exists and has the length that was sent.
func (w *partWriter) isThere() bool {
	body, o, err := w.folder.service.get(w.ctx, w.name, "", 0)
	if err != nil {
		return false
	}
	body.Close()
	return o.size == w.sent
}

// close removes the parts of an upload that has failed.
func (w *partWriter) close(err error) {
	if w.upload == nil || err == nil && w.done {
		if u, ok := w.upload.(*folderUpload); ok {
			u.abort(w.ctx) // removes the temporary name
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), 5*time.Second)
	defer cancel()
	w.upload.abort(ctx)
}
