package remote

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Limits describes what the service can do, and what the credentials permit.
type Limits struct {
	Conditional bool // whether the service refuses a write whose condition is not met, so that several captures may share the folder
	Deletes     bool // whether Probe could remove its object; some credentials do not permit that
	Checksums   bool // whether the service refuses data that do not match their checksum; false if no checksum is sent
}

// Probe finds out what the service can do, and what the credentials permit. It writes an object, tries writes that the
// service should refuse because of their condition or checksum, and removes the object. It fails if nothing can be written.
// Later calls of the other methods depend on what Probe finds.
func (f *Folder) Probe(ctx context.Context) (Limits, error) {
	l, err := f.probe(ctx)
	if err != nil {
		return Limits{}, fmt.Errorf("write to %s: %w", f.Location, err)
	}
	f.limits = l
	return l, nil
}

func (f *Folder) probe(ctx context.Context) (l Limits, err error) {
	name := f.name + "probe"
	write := func(c condition) (string, error) {
		return f.put(ctx, name, fmt.Appendf(nil, "capture has asked what this service does: %s %s\n", time.Now().UTC().Format(time.RFC3339), randomWord()), c)
	}
	// isRefused reports whether the service refuses a write because of the condition. A service that does not know the
	// condition ignores it, or refuses the write as unsupported. In both cases isRefused reports false.
	isRefused := func(c condition) (bool, error) {
		var clean *cleanError
		switch _, err := write(c); {
		case errors.Is(err, errChanged), c.version != "" && errors.Is(err, errMissing):
			return true, nil
		case errors.As(err, &clean) && clean.unsupported, err == nil:
			return false, nil
		default:
			return false, err
		}
	}
	old, err := write(condition{})
	if err == nil {
		_, err = write(condition{})
	}
	if err != nil {
		return l, err
	}
	stale, err := isRefused(condition{version: old})
	if err != nil {
		return l, err
	}
	taken, err := isRefused(condition{absent: true})
	if err == nil && !taken {
		taken, err = isRefused(condition{absent: true}) // another capture might have removed the object in between
	}
	if err != nil {
		return l, err
	}
	l.Conditional = stale && taken
	if f.Checksum() != "" {
		var clean *cleanError
		_, err = write(condition{spoiled: true})
		if l.Checksums = errors.As(err, &clean) && clean.status/100 == 4; err != nil && !l.Checksums {
			return l, err
		}
	}
	switch err := f.remove(ctx, name); {
	case err == nil:
		l.Deletes = true
	case !errors.Is(err, errDenied) && !errors.Is(err, errChanged):
		return l, err
	}
	return l, nil
}
