package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"

	"capture/store/manifest"
)

// Prove reads a state back whole and compares it with its manifest. If they differ, or if the data or the manifest are missing
// or cannot be read, the error wraps a [*DamagedError].
func (l *Location) Prove(ctx context.Context, s State) error {
	m, err := l.Manifest(ctx, s)
	if err == nil {
		err = l.prove(ctx, s, m)
	}
	switch {
	case err == nil, errors.As(err, new(*DamagedError)):
	case errors.Is(err, errMissing):
		err = &DamagedError{"it is missing"}
	default:
		return fmt.Errorf("read %s back: %w", s.URL, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.URL, err)
	}
	return nil
}

func (l *Location) prove(ctx context.Context, s State, m manifest.Manifest) error {
	r := &reader{ctx: ctx, location: l, name: s.data()}
	defer r.Close()
	z, err := gzip.NewReader(r)
	h := manifest.NewHasher(m)
	if err == nil {
		// A byte more than the manifest says is enough to see the difference, however much the data expand to.
		_, err = io.Copy(h, io.LimitReader(z, m.Bytes+1))
	}
	switch {
	case r.err != nil && r.err != io.EOF: // the request failed, so nothing is known about the data
		return r.err
	case err != nil:
		return &DamagedError{"it is not valid gzip: " + err.Error()}
	case m.Kept != nil && m.Kept.Damaged != "":
		return nil // the state was already damaged when it was kept
	}
	if mismatch := h.Mismatch(m); mismatch != "" {
		return &DamagedError{mismatch}
	}
	return nil
}

// Download writes a state and its manifest into a folder on this machine and returns the path of the data, which are gzip. It
// checks the manifest, but does not compare the data with it.
func (l *Location) Download(ctx context.Context, s State, folder string) (path string, m manifest.Manifest, err error) {
	if m, err = l.Manifest(ctx, s); err != nil {
		return "", m, err
	}
	path = filepath.Join(folder, filepath.Base(s.data()))
	data, err := m.Encode()
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, filepath.Base(s.manifest())), data, 0o600)
	}
	if err == nil {
		err = l.download(ctx, s, path)
	}
	if err != nil {
		return "", m, fmt.Errorf("download %s: %w", s.URL, err)
	}
	return path, m, nil
}

func (l *Location) download(ctx context.Context, s State, path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	r := l.Reader(ctx, s)
	defer r.Close()
	_, err = io.Copy(file, r)
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	return err
}

// Reader returns a reader of the data of a state, which are gzip. After a break it continues where it was.
func (l *Location) Reader(ctx context.Context, s State) io.ReadCloser {
	return &reader{ctx: ctx, location: l, name: s.data()}
}

// reader reads an object. After a break it requests the rest of the same version.
type reader struct {
	ctx      context.Context
	location *Location
	name     string
	version  string // version of the object; "" before the first response
	offset   int64  // number of bytes read so far
	body     io.ReadCloser
	err      error // error of the last read, io.EOF at the end
}

func (r *reader) Read(p []byte) (n int, err error) {
	if r.err != nil {
		return 0, r.err
	}
	r.err = r.location.retry(r.ctx, func() error {
		if r.body == nil {
			body, o, err := r.location.service.get(r.ctx, r.name, r.version, r.offset)
			if err != nil {
				return err
			}
			r.body, r.version = body, o.version
		}
		n, err = r.body.Read(p)
		r.offset += int64(n)
		if n > 0 && err == io.EOF {
			return nil // the next call returns the end
		}
		if err != nil && err != io.EOF {
			r.body.Close()
			r.body = nil
			if n > 0 {
				return nil // the next call continues after these bytes
			}
		}
		if err == io.EOF {
			return errEnd
		}
		return err
	})
	if errors.Is(r.err, errEnd) {
		r.err = io.EOF
	}
	return n, r.err
}

// errEnd stands for io.EOF, which retry would treat as a broken connection.
var errEnd = &cleanError{text: "end of the object"}

func (r *reader) Close() error {
	if r.body != nil {
		return r.body.Close()
	}
	return nil
}
