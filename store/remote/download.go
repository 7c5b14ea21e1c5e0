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

// Prove reads a state back whole and compares it with its manifest. If they differ, or if the data or the manifest are
// missing or not valid, the error wraps a [*DamagedError]. The error for a failed request does not wrap a DamagedError. A
// state that was already damaged when it was kept may differ from its manifest, which describes the damage. For such a
// state, Prove only checks that its data are valid gzip.
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
	r := l.newJSONReader(ctx, s, m)
	defer r.Close()
	_, err := io.Copy(io.Discard, r)
	if !r.differs || !isKnownDamaged(m) {
		return err
	}
	if _, err = io.Copy(io.Discard, r.gzip); err != nil { // r stops at the length in the manifest, so read the rest
		return r.explain(err)
	}
	return nil
}

// JSON returns a reader of the JSON of a state. The reader compares the JSON with the manifest. If they differ, the reader
// returns an error that wraps a [*DamagedError] instead of io.EOF. It reads at most one byte more than the manifest says,
// however much the data expand to.
func (l *Location) JSON(ctx context.Context, s State, m manifest.Manifest) io.ReadCloser {
	return l.newJSONReader(ctx, s, m)
}

func (l *Location) newJSONReader(ctx context.Context, s State, m manifest.Manifest) *jsonReader {
	return &jsonReader{data: l.Reader(ctx, s).(*reader), manifest: m, hasher: manifest.NewHasher(m)}
}

type jsonReader struct {
	data     *reader
	gzip     *gzip.Reader // nil before the first Read
	manifest manifest.Manifest
	hasher   *manifest.Hasher
	n        int64 // number of bytes read so far
	differs  bool  // whether the JSON differs from the manifest
}

func (r *jsonReader) Read(p []byte) (n int, err error) {
	if r.gzip == nil {
		r.gzip, err = gzip.NewReader(r.data)
	}
	if err == nil {
		n, err = r.gzip.Read(p[:min(int64(len(p)), r.manifest.Bytes+1-r.n)])
		r.n += int64(n)
		_, _ = r.hasher.Write(p[:n]) // never fails
	}
	switch {
	case err == nil && r.n > r.manifest.Bytes:
		r.differs = true
		return n, &DamagedError{fmt.Sprintf("it has more than the %d bytes of its manifest", r.manifest.Bytes)}
	case err == nil:
		return n, nil
	case err != io.EOF:
		return n, r.explain(err)
	}
	if mismatch := r.hasher.Mismatch(r.manifest); mismatch != "" {
		r.differs = true
		return n, &DamagedError{mismatch}
	}
	return n, io.EOF
}

// explain returns the cause of err: a failed request or damaged data. err is the error with which reading the gzip ended.
func (r *jsonReader) explain(err error) error {
	if r.data.err != nil && r.data.err != io.EOF { // the request failed, so nothing is known about the data
		return r.data.err
	}
	return &DamagedError{"it is not valid gzip: " + err.Error()}
}

func (r *jsonReader) Close() error { return r.data.Close() }

// Download writes a state and its manifest into a folder on this machine and returns the path of the data, which is compressed
// with gzip. It checks the manifest, but does not compare the data with it.
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
		err = l.download(ctx, s, m, path)
	}
	if err != nil {
		return "", m, fmt.Errorf("download %s: %w", s.URL, err)
	}
	return path, m, nil
}

func (l *Location) download(ctx context.Context, s State, m manifest.Manifest, path string) error {
	limit := m.Bytes + m.Bytes/100 + 64<<10 // gzip never makes data much longer
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	r := l.Reader(ctx, s)
	defer r.Close()
	content := io.LimitReader(r, limit+1)
	if l.Progress != nil {
		content = io.TeeReader(content, &byteCounter{progress: l.Progress})
	}
	n, err := io.Copy(file, content)
	if err == nil && n > limit {
		err = &DamagedError{fmt.Sprintf("its data are longer than the %d bytes of JSON in its manifest can be", m.Bytes)}
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	return err
}

// byteCounter is a writer that counts the bytes written to it. It passes their number to its function progress.
type byteCounter struct {
	bytes    int64
	progress func(int64)
}

func (c *byteCounter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	c.progress(c.bytes)
	return len(p), nil
}

// Reader returns a reader of a state's gzip data. If the connection breaks, the reader connects again and continues at the
// same byte.
func (l *Location) Reader(ctx context.Context, s State) io.ReadCloser {
	return &reader{ctx: ctx, location: l, name: s.data()}
}

// reader reads an object. If the connection breaks, it requests the rest of the same version.
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
			return nil // the next call returns io.EOF
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
