package remote

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Accepted describes the URLs that Open accepts, for messages.
const Accepted = "azblob://CONTAINER/PREFIX, s3://BUCKET/PREFIX or file:///FOLDER; ?endpoint=URL names another server of the first two"

// Location is the place for copies that a URL names. Its methods may be called from any goroutine.
type Location struct {
	service   service
	transport *transport
	prefix    string // beginning of the names of all objects: "" or a path that ends with "/"
	url       string // URL without secrets and without a slash at the end
	secrets   []string
	identity  string       // hint for errors if the credentials come from an identity of the machine; "" if they are in the environment
	expires   time.Time    // expiry of the SAS token; zero if there is none
	waited    atomic.Int64 // duration of all waiting so far, in nanoseconds; see Waited

	// Patience is the maximum time for which a request is repeated if it fails because of the network or the service. Zero
	// means two minutes.
	Patience time.Duration

	// Progress is called during a Download with the number of bytes received so far. It may be nil.
	Progress func(bytes int64)
}

// IsURL reports whether text is meant as a URL, and not as the path of a file. It also reports true for URLs that Open
// refuses, such as https URLs. If such a URL were taken for a path, a message could show the secret in it.
func IsURL(text string) bool {
	return urlStart.MatchString(text)
}

var urlStart = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)

// Open returns the location that a URL names. It makes no request. Credentials come from the environment, through getenv. The
// error shows neither the credentials nor the parts of the URL that may be secret.
func Open(rawURL string, getenv func(string) string) (*Location, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("the value (hidden, as it is not a URL) is not one of %s", Accepted)
	}
	shown := strings.TrimSuffix(u.Scheme+"://"+u.Host+path.Clean("/"+u.Path), "/")
	refuse := func(format string, args ...any) (*Location, error) {
		return nil, fmt.Errorf("%q %s; it accepts %s", shown, fmt.Sprintf(format, args...), Accepted)
	}
	if u.User != nil || u.Fragment != "" {
		return refuse("has a user or a fragment (hidden); credentials belong into the environment")
	}
	query := u.Query()
	endpoint, region := query.Get("endpoint"), query.Get("region")
	query.Del("endpoint")
	query.Del("region")
	if len(query) > 0 {
		return refuse("has a query (hidden) with more than endpoint and region; credentials belong into the environment")
	}
	if endpoint != "" {
		if e, err := url.Parse(endpoint); err != nil || !isEndpoint(e) {
			return refuse("has an endpoint (hidden) that is not a URL such as https://storage.example.com")
		}
	}
	l := &Location{url: shown, secrets: secretsOf(getenv), transport: newTransport()}
	if l.prefix = strings.TrimPrefix(path.Clean("/"+u.Path), "/"); l.prefix != "" {
		l.prefix += "/"
	}
	if len(l.prefix) > 512 || strings.ContainsFunc(l.prefix, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f }) {
		return refuse("has a prefix that is too long, or has characters that not all services allow")
	}
	switch u.Scheme {
	case "azblob":
		if !isContainerName(u.Host) {
			return refuse("does not name a container, whose name has 3 to 63 lower-case letters, digits and hyphens")
		}
		l.service, err = openAzure(u.Host, endpoint, getenv, l.transport)
	case "s3":
		if !isBucketName(u.Host) {
			return refuse("does not name a bucket, whose name has 3 to 63 lower-case letters, digits, dots and hyphens")
		}
		l.service, err = openS3(u.Host, endpoint, region, getenv, l.transport)
	case "file":
		if u.Host != "" || l.prefix == "" || endpoint+region != "" {
			return refuse("does not name a folder by its whole path, such as file:///mnt/copies")
		}
		l.service, l.prefix = openFolder(path.Clean(u.Path)), ""
	default:
		return refuse("is none of these")
	}
	l.identity = identityHint(u.Scheme, getenv)
	if u.Scheme == "azblob" {
		l.expires = expiryOf(getenv)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown, l.clean(err))
	}
	return l, nil
}

// identityHint returns a hint for errors if the credentials for a service come from an identity of the machine.
func identityHint(scheme string, getenv func(string) string) string {
	switch {
	case scheme == "s3" && getenv("AWS_ACCESS_KEY_ID") == "":
		return "AWS_ACCESS_KEY_ID is not set, so the credentials are those of a web identity or an instance role"
	case scheme == "azblob" && getenv("AZURE_STORAGE_CONNECTION_STRING")+getenv("AZURE_STORAGE_KEY")+getenv("AZURE_STORAGE_SAS_TOKEN") == "":
		return "neither a connection string, AZURE_STORAGE_KEY nor AZURE_STORAGE_SAS_TOKEN is set, so the token is that of a managed or workload identity"
	}
	return ""
}

// expiryOf returns the expiry time of the SAS token that openAzure uses, or the zero time if openAzure uses none.
func expiryOf(getenv func(string) string) time.Time {
	text := ""
	if connection := getenv("AZURE_STORAGE_CONNECTION_STRING"); connection != "" {
		_, signature, _ := strings.Cut(connection, "SharedAccessSignature=")
		text, _, _ = strings.Cut(signature, ";")
	} else if getenv("AZURE_STORAGE_KEY") == "" {
		text = getenv("AZURE_STORAGE_SAS_TOKEN")
	}
	values, _ := url.ParseQuery(strings.TrimPrefix(text, "?"))
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", time.DateOnly} { // the layouts that Azure accepts
		if t, err := time.Parse(layout, values.Get("se")); err == nil {
			return t
		}
	}
	return time.Time{}
}

// The functions below check the lengths of names, because a regular expression with an upper limit for a repetition takes long
// to compile.
var (
	containerName = regexp.MustCompile(`^[a-z0-9](-?[a-z0-9])+$`)
	bucketName    = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]+[a-z0-9]$`)
	dnsLabel      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
)

func isContainerName(s string) bool {
	return len(s) >= 3 && len(s) <= 63 && containerName.MatchString(s)
}
func isBucketName(s string) bool { return len(s) <= 63 && bucketName.MatchString(s) }
func isDNSLabel(s string) bool   { return len(s) <= 63 && dnsLabel.MatchString(s) }

// isEndpoint reports whether u is the URL of a server, without credentials.
func isEndpoint(u *url.URL) bool {
	return (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// secretsOf returns the texts in the environment that no message may contain.
func secretsOf(getenv func(string) string) []string {
	var secrets []string
	add := func(text string) {
		if len(text) >= 4 {
			secrets = append(secrets, text)
		}
		if plain, err := url.QueryUnescape(text); err == nil && plain != text && len(plain) >= 4 {
			// A message may show the secret with upper-case escapes (%2F), even if text has lower-case escapes (%2f).
			secrets = append(secrets, plain, url.QueryEscape(plain))
		}
		if escaped := url.QueryEscape(text); escaped != text && len(text) >= 4 {
			secrets = append(secrets, escaped)
		}
	}
	for _, name := range []string{"AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_SECRET",
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		text := getenv(name)
		add(text)
		// A connection string and a SAS token consist of pairs NAME=VALUE. Only the pairs with the key and with the signature are
		// secret.
		for _, pair := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '&' || r == '?' }) {
			if key, value, ok := strings.Cut(pair, "="); ok {
				switch strings.ToLower(key) {
				case "accountkey", "sig", "sharedaccesssignature":
					add(value)
				}
			}
		}
	}
	return secrets
}

// HasClock reports whether the service has a clock of its own, which its responses show. A folder has none.
func (l *Location) HasClock() bool {
	_, isFolder := l.service.(folderService)
	return !isFolder
}

// String returns the URL without secrets.
func (l *Location) String() string { return l.url }

// Waited returns the total waiting time so far. It consists of the pauses after failed requests, and of the time in each failed
// request after the last byte was sent or received. The whole duration of a failed operation on a local folder counts as
// waiting. Waiting uses no resources of this machine or of the service.
func (l *Location) Waited() time.Duration { return time.Duration(l.waited.Load()) }

// Checksum returns the name of the checksum that is sent along with the data.
func (l *Location) Checksum() string { return l.service.checksum() }

// retry calls f until f succeeds or fails for a permanent reason. It gives up once f has failed for l.Patience. The error
// contains neither URLs nor secrets.
func (l *Location) retry(ctx context.Context, f func() error) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 500*time.Millisecond, 15*time.Second
	patience := l.Patience
	if patience == 0 {
		patience = 2 * time.Minute
	}
	first := time.Now()
	for {
		begun := time.Now()
		err := f()
		if err == nil {
			return nil
		}
		l.waited.Add(int64(l.transport.silence(begun)))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pause := pauses.NextBackOff()
		if !isTransient(err) || time.Since(first)+pause > patience {
			return l.clean(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			l.waited.Add(int64(pause))
		}
	}
}

// put is service.put with retries. If an attempt succeeds but its response is lost, the condition is no longer met, and the
// next attempt fails with errChanged. Therefore, if a retry fails with errChanged, put reads the object, and succeeds if the
// object contains data.
func (l *Location) put(ctx context.Context, name string, data []byte, c condition) (version string, err error) {
	failed := false
	err = l.retry(ctx, func() (err error) {
		version, err = l.service.put(ctx, name, data, c)
		if failed && errors.Is(classify(err), errChanged) {
			if there, v, gerr := l.read(ctx, name, int64(len(data))); gerr == nil && string(there) == string(data) {
				version, err = v, nil
			}
		}
		failed = err != nil
		return err
	})
	return version, err
}

// read returns an object of at most limit bytes, and its version.
func (l *Location) read(ctx context.Context, name string, limit int64) (data []byte, version string, err error) {
	err = l.retry(ctx, func() error {
		body, o, err := l.service.get(ctx, name, "", 0)
		if err != nil {
			return err
		}
		defer body.Close()
		data, err = readLimited(body, limit)
		version = o.version
		return err
	})
	return data, version, err
}

// randomWord returns a word that no other process uses.
func randomWord() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Environ returns an environment variable of the process, without white space around it. It is the getenv that programs pass to
// [Open].
func Environ(name string) string { return strings.TrimSpace(os.Getenv(name)) }
