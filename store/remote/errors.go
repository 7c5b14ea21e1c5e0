package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/minio/minio-go/v7"

	"capture/internal/foreign"
)

// IsMissing reports whether err means that an object does not exist.
func IsMissing(err error) bool { return errors.Is(err, errMissing) }

// IsDenied reports whether err means that the credentials do not permit a request.
func IsDenied(err error) bool { return errors.Is(err, errDenied) }

// responseOf returns the status, the code and the message if err is a response of the service. Otherwise status is 0.
func responseOf(err error) (status int, code, message string) {
	var azure *azcore.ResponseError
	var s3 minio.ErrorResponse
	switch {
	case errors.As(err, &azure):
		return azure.StatusCode, azure.ErrorCode, ""
	case errors.As(err, &s3):
		return s3.StatusCode, s3.Code, s3.Message
	}
	return 0, "", ""
}

// classify returns errMissing, errChanged, errDenied or errTooLarge if err means one of these, and otherwise err.
func classify(err error) error {
	status, code, _ := responseOf(err)
	switch {
	case err == nil, errors.Is(err, errMissing), errors.Is(err, errChanged), errors.Is(err, errDenied):
		return err
	case errors.Is(err, errTooLarge):
		return errTooLarge
	case errors.Is(err, fs.ErrNotExist), status == http.StatusNotFound:
		return errMissing
	case errors.Is(err, fs.ErrPermission), status == http.StatusForbidden, status == http.StatusUnauthorized:
		return errDenied
	case status == http.StatusPreconditionFailed, status == http.StatusConflict && isConflict(code):
		return errChanged
	}
	return err
}

// isConflict reports whether the code of a response with the status 409 means that the name is taken or the object has
// changed. Either another request was faster, or a policy forbids replacing the object.
func isConflict(code string) bool {
	switch code {
	case "BlobAlreadyExists", "UnauthorizedBlobOverwrite", "ConditionalRequestConflict", "BlobImmutableDueToPolicy":
		return true
	}
	return false
}

// isUnsupported reports whether err means that the service does not implement a request.
func isUnsupported(err error) bool {
	status, code, _ := responseOf(err)
	return status == http.StatusNotImplemented || code == "NotImplemented" || code == "UnsupportedHeader"
}

// isTransient reports whether the same request may succeed later, and is therefore worth repeating.
func isTransient(err error) bool {
	if errors.As(err, new(*cleanError)) {
		return false // never retried: a cleanError is errEnd, or the error of an inner call of retry that has given up
	}
	switch classify(err) {
	case errMissing, errChanged, errDenied, errTooLarge:
		return false
	}
	var local *fs.PathError
	status, _, _ := responseOf(err)
	switch {
	case errors.Is(err, context.Canceled), errors.As(err, &local):
		// After a local error, such as a full disk, an immediate repetition would not help. The caller tries again later.
		return false
	case status == 0:
		return true
	}
	return status >= 500 && status != http.StatusNotImplemented || status == http.StatusRequestTimeout || status == http.StatusTooManyRequests
}

// clean returns err in a form that a person may see: without URLs, which may have a signature, and without secrets. The
// returned error wraps errMissing, errChanged, errDenied or errTooLarge if err means one of these.
func (l *Location) clean(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.As(err, new(*cleanError)) {
		return err
	}
	text := err.Error()
	status, code, message := responseOf(err)
	if status > 0 {
		text = fmt.Sprintf("the service answered %d %s", status, code)
		if message != "" {
			text += ": " + message
		}
	} else if u := (*url.Error)(nil); errors.As(err, &u) {
		text = u.Err.Error()
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = strings.TrimSuffix(text, ".")
	for _, secret := range l.secrets {
		text = strings.ReplaceAll(text, secret, "(hidden)")
	}
	if status == http.StatusForbidden || status == http.StatusUnauthorized {
		if ahead := l.transport.clockError(); ahead != 0 {
			text += fmt.Sprintf("; the service's clock is %s: set this machine's clock", aheadText(ahead))
		}
		if !l.expires.IsZero() && l.transport.serviceNow().After(l.expires) {
			text += fmt.Sprintf("; the SAS token has expired at %s: make a new one", l.expires.UTC().Format(time.RFC3339))
		}
	}
	if l.identity != "" && (status == 0 || status == http.StatusForbidden || status == http.StatusUnauthorized) {
		text += "; " + l.identity
	}
	return &cleanError{foreign.Text(text), classify(err), status, isUnsupported(err)}
}

func aheadText(d time.Duration) string {
	if d < 0 {
		return (-d).String() + " behind"
	}
	return d.String() + " ahead"
}

// cleanError is an error whose text is safe to print, because it contains neither URLs nor secrets.
type cleanError struct {
	text        string
	kind        error // errMissing, errChanged, errDenied, errTooLarge or another error
	status      int   // status of the service's response; 0 if there was none
	unsupported bool
}

func (e *cleanError) Error() string { return e.text }

func (e *cleanError) Is(target error) bool { return e.kind == target }

// readLimited reads all of r. If r has more than limit bytes, the error is errTooLarge.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%w: it has more than %d bytes", errTooLarge, limit)
	}
	return data, err
}
