package remote_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"capture/store/manifest"
	"capture/store/remote"
)

// gunzip returns the content of a gzip file.
func gunzip(t *testing.T, path string) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// rawObject reads an object without package remote. place is the URL of the prefix.
func rawObject(t *testing.T, place *url.URL, env map[string]string, name string) io.Reader {
	t.Helper()
	name = strings.TrimPrefix(place.Path+"/"+name, "/")
	if place.Scheme == "azblob" {
		client, err := container.NewClientFromConnectionString(env["AZURE_STORAGE_CONNECTION_STRING"], place.Host, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := client.NewBlobClient(name).DownloadStream(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Body.Close() })
		return r.Body
	}
	s3, err := s3Client(env)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s3.GetObject(t.Context(), place.Host, name, minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// rawBytes is like rawObject, but it also accepts the URL of a folder.
func rawBytes(t *testing.T, place *url.URL, env map[string]string, name string) io.Reader {
	t.Helper()
	if place.Scheme != "file" {
		return rawObject(t, place, env, name)
	}
	file, err := os.Open(filepath.Join(place.Path, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

func s3Client(env map[string]string) (*minio.Client, error) {
	return minio.New(strings.TrimPrefix(env["AWS_ENDPOINT_URL"], "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], ""), Region: "us-east-1",
	})
}

// replaceObject writes an object without using package remote.
func replaceObject(t *testing.T, place *url.URL, env map[string]string, name string, data []byte) {
	t.Helper()
	if err := objectPutter(t, place, env)(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
}

// objectPutter returns a function that writes an object without package remote. Any goroutine may call it.
func objectPutter(t *testing.T, place *url.URL, env map[string]string) func(ctx context.Context, name string, data []byte) error {
	t.Helper()
	path := func(name string) string { return strings.TrimPrefix(place.Path+"/"+name, "/") }
	switch place.Scheme {
	case "azblob":
		client, err := container.NewClientFromConnectionString(env["AZURE_STORAGE_CONNECTION_STRING"], place.Host, nil)
		if err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context, name string, data []byte) error {
			_, err := client.NewBlockBlobClient(path(name)).UploadBuffer(ctx, data, nil)
			return err
		}
	case "s3":
		client, err := s3Client(env)
		if err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context, name string, data []byte) error {
			_, err := client.PutObject(ctx, place.Host, path(name), bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{})
			return err
		}
	}
	return func(_ context.Context, name string, data []byte) error {
		return os.WriteFile(filepath.Join(place.Path, name), data, 0o600)
	}
}

// loss returns the state before a loss. The state has n rows.
func loss(n int, at time.Time) remote.Source {
	src := source(n, "0/100", 1, at)
	src.Manifest.Kept = &manifest.Kept{Loss: &manifest.Loss{Found: at, RowsBefore: n}}
	return src
}

// bomb returns a gzip file of a megabyte that expands to a gigabyte.
func bomb() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(make([]byte, 1<<20)) // never fails
	z.Close()
	return bytes.Repeat(b.Bytes(), 1<<10) // several gzip members in a row are one gzip file
}
