// Package objectserver starts object stores for tests: Azurite for Azure Blob Storage, and versitygw for S3. `make stores`
// installs them. The tests of a package share one server of each kind, and each test has a container or bucket of its own.
package objectserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"capture/internal/pgserver"
)

// Versions of the object stores. They must match deploy/install-stores.sh, which installs these versions.
const (
	azuriteVersion   = "3.35.0"
	versitygwVersion = "1.8.0"
)

// Kinds are the kinds of servers. A kind is also the URL scheme of its buckets, as in s3://name.
var Kinds = []string{"azblob", "s3"}

// Server is a running object store.
type Server struct {
	Kind string // "azblob" or "s3"
	Addr string // host and port
	key  string // name of the account or of the access key
	word string // secret key of the account or of the access key

	cmd  *exec.Cmd
	log  bytes.Buffer
	dir  string
	done chan struct{} // closed when the process has ended
}

var shared struct {
	sync.Mutex
	servers map[string]*Server
}

// Main calls runTests, which runs the tests of a package. Then Main stops the servers that the tests shared, and returns the
// result of runTests.
func Main(runTests func() int) int {
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		for _, s := range shared.servers {
			s.stop()
		}
	}()
	return runTests()
}

// Shared returns the server of the given kind that the tests of a package share, and starts it on first use. [Main] must run
// the tests, because it stops the server.
func Shared(t testing.TB, kind string) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if s := shared.servers[kind]; s != nil {
		return s
	}
	s, err := start(kind)
	if err != nil {
		t.Fatalf("start a server for %s: %v", kind, err)
	}
	if shared.servers == nil {
		shared.servers = map[string]*Server{}
	}
	shared.servers[kind] = s
	return s
}

func start(kind string) (*Server, error) {
	tools, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	tools = filepath.Join(tools, "capture-test")
	port, err := pgserver.FreePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Kind: kind, Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), done: make(chan struct{})}
	if s.dir, err = os.MkdirTemp("", "objectserver-"); err != nil {
		return nil, err
	}
	var secret [64]byte
	_, _ = rand.Read(secret[:]) // never fails
	switch kind {
	case "azblob":
		s.key, s.word = "captureaccount", base64.StdEncoding.EncodeToString(secret[:])
		s.cmd = exec.Command("node", filepath.Join(tools, "azurite-"+azuriteVersion, "node_modules/azurite/dist/src/blob/main.js"),
			"--blobHost", "127.0.0.1", "--blobPort", strconv.Itoa(port), "--inMemoryPersistence", "--silent", "--disableTelemetry",
			"--skipApiVersionCheck")
		s.cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS="+s.key+":"+s.word)
	case "s3":
		s.key, s.word = "CAPTUREACCESSKEY", hex.EncodeToString(secret[:20])
		for _, dir := range []string{"data", "iam"} {
			if err := os.Mkdir(filepath.Join(s.dir, dir), 0o755); err != nil {
				return nil, err
			}
		}
		s.cmd = exec.Command(filepath.Join(tools, "versitygw-"+versitygwVersion), "--port", s.Addr, "--access", s.key, "--secret", s.word,
			"--quiet", "--iam-dir", filepath.Join(s.dir, "iam"), "posix", filepath.Join(s.dir, "data"))
	default:
		return nil, fmt.Errorf("unknown kind %q", kind)
	}
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, &s.log, &s.log
	if err := s.startProcess(); err != nil {
		os.RemoveAll(s.dir)
		return nil, fmt.Errorf("%w; make stores installs it", err)
	}
	return s, s.awaitReady()
}

// startProcess starts the process. The kernel kills the process when the thread that started it ends (see endWithParent). So
// startProcess uses a thread that does nothing else, and that lives until the process ends.
func (s *Server) startProcess() error {
	endWithParent(s.cmd)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
			close(s.done)
		}
	}()
	return <-started
}

// awaitReady waits until the server responds.
func (s *Server) awaitReady() error {
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		resp, err := http.Get("http://" + s.Addr + "/")
		if err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-s.done:
			return fmt.Errorf("it has ended; make stores installs it:\n%s", s.log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.stop()
	return fmt.Errorf("it does not respond:\n%s", s.log.String())
}

func (s *Server) stop() {
	_ = s.cmd.Process.Kill()
	<-s.done
	os.RemoveAll(s.dir)
}

// Bucket is a bucket (on Azure, a container) that one test uses.
type Bucket struct {
	*Server
	Name string
	URL  string            // value for --copy-to; it does not name the server
	Env  map[string]string // environment variables that name the server and contain the credentials

	// Secrets are the texts that no output may contain: the secrets in Env, and the secrets that SASToken and WithoutDelete
	// create.
	Secrets []string
}

// NewBucket creates a bucket (on Azure, a container) on the shared server of the given kind.
func NewBucket(t testing.TB, kind string) *Bucket {
	t.Helper()
	s := Shared(t, kind)
	var word [6]byte
	_, _ = rand.Read(word[:]) // never fails
	b := &Bucket{Server: s, Name: "copies-" + hex.EncodeToString(word[:])}
	b.URL = kind + "://" + b.Name
	b.Env = s.env(s.Addr)
	b.Secrets = []string{s.word}
	if err := b.create(t.Context()); err != nil {
		t.Fatalf("create %s: %v", b.URL, err)
	}
	return b
}

// Through returns the environment variables for a client that reaches the server at another address, such as the address of
// a proxy.
func (b *Bucket) Through(addr string) map[string]string { return b.env(addr) }

func (s *Server) env(addr string) map[string]string {
	if s.Kind == "azblob" {
		return map[string]string{"AZURE_STORAGE_CONNECTION_STRING": fmt.Sprintf(
			"DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;BlobEndpoint=http://%s/%[1]s;", s.key, s.word, addr)}
	}
	return map[string]string{"AWS_ACCESS_KEY_ID": s.key, "AWS_SECRET_ACCESS_KEY": s.word, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "http://" + addr}
}

func (b *Bucket) create(ctx context.Context) error {
	if b.Kind == "azblob" {
		client, err := b.Container()
		if err == nil {
			_, err = client.Create(ctx, nil)
		}
		return err
	}
	client, err := b.S3()
	if err != nil {
		return err
	}
	return client.MakeBucket(ctx, b.Name, minio.MakeBucketOptions{})
}

// Container returns a client for the container, with all rights.
func (b *Bucket) Container() (*container.Client, error) {
	return container.NewClientFromConnectionString(b.Env["AZURE_STORAGE_CONNECTION_STRING"], b.Name, nil)
}

// S3 returns a client for the bucket's server, with all rights.
func (b *Bucket) S3() (*minio.Client, error) {
	return minio.New(b.Addr, &minio.Options{Creds: credentials.NewStaticV4(b.key, b.word, ""), Region: "us-east-1"})
}

// WithoutDelete returns environment variables for a client that reaches the server at addr, with credentials that allow
// reading, writing and listing, but no deletion.
func (b *Bucket) WithoutDelete(t testing.TB, addr string) map[string]string {
	t.Helper()
	env, err := b.withoutDelete(t.Context(), addr)
	if err != nil {
		t.Fatalf("create credentials without the right to delete: %v", err)
	}
	return env
}

// Getenv returns a function like os.Getenv that knows only the given variables.
func Getenv(env map[string]string) func(string) string {
	return func(name string) string { return env[name] }
}

// Environ returns the variables in the form of os.Environ.
func Environ(env map[string]string) []string {
	var list []string
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	return list
}
