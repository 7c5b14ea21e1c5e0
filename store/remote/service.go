package remote

import (
	"context"
	"errors"
	"io"
	"time"
)

// service is a container of objects. The names of objects use "/" and include the location's prefix.
type service interface {
	// list returns the objects and the folders directly below a folder. The name of a folder ends with "/", and "" is the root.
	list(ctx context.Context, folder string) (objects []object, folders []string, err error)

	// get returns the object's bytes from offset on. If version is not "" and the object has another version, the error is
	// errChanged.
	get(ctx context.Context, name, version string, offset int64) (io.ReadCloser, object, error)

	// put writes a whole object, and returns its version. The service compares the data with a checksum that is sent along.
	// If the condition is not met, the error is errChanged.
	put(ctx context.Context, name string, data []byte, c condition) (version string, err error)

	// create begins an upload in parts. Nothing is visible under the name before the upload is committed.
	create(ctx context.Context, name string) (upload, error)

	// remove removes the object. It is not an error if the object does not exist.
	remove(ctx context.Context, name string) error

	// removeAbandoned removes what is left of unfinished uploads that began before the given time.
	removeAbandoned(ctx context.Context, folder string, before time.Time) error

	// checksum returns the name of the checksum that put and upload.part send.
	checksum() string
}

// upload is an object that is being uploaded in parts.
type upload interface {
	// part uploads the part with the given number. The first part has the number 1. After an error, the same part may be sent
	// again.
	part(ctx context.Context, number int, data []byte) error

	// commit makes the object visible. Callers may set only c.absent. If c.absent is true and the object exists already, the
	// error is errChanged.
	commit(ctx context.Context, c condition) error

	// abort removes the parts, as far as the service permits that.
	abort(ctx context.Context)
}

// object describes an object of a service.
type object struct {
	name     string
	size     int64 // length in bytes
	version  string
	modified time.Time // time of the last change, by the service's clock
}

// condition is the condition of a put. The zero condition is always met.
type condition struct {
	absent  bool   // the name must be free
	version string // the object must have this version; "" if it may have any
	spoiled bool   // whether to send a wrong checksum, to find out whether the service refuses it
}

// These errors are the outcomes that callers distinguish. All other errors are failures of the network or of the service.
var (
	errMissing  = errors.New("the object does not exist")
	errChanged  = errors.New("the object has been changed, or exists already")
	errDenied   = errors.New("the service denies access")
	errTooLarge = errors.New("the object is too large")
)
