package remote

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// s3Service is a bucket of S3 or of a compatible service.
type s3Service struct {
	core   *minio.Core
	bucket string
}

// openS3 returns the service for a bucket. The credentials come from the environment variables that AWS' own tools read.
func openS3(bucket, endpoint, region string, getenv func(string) string, transport http.RoundTripper) (service, error) {
	options := &minio.Options{
		Region: cmp.Or(region, getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION")), Secure: true, Transport: transport, MaxRetries: 1,
	}
	id, secret := getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY")
	switch {
	case id != "" && secret != "":
		options.Creds = credentials.NewStaticV4(id, secret, getenv("AWS_SESSION_TOKEN"))
	case id != "" || secret != "":
		return nil, fmt.Errorf("set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither of them if there is a web identity or an instance role")
	default:
		options.Creds = credentials.New(&credentials.IAM{Region: options.Region, Client: &http.Client{Transport: transport}})
	}
	host := "s3.amazonaws.com"
	if endpoint = cmp.Or(endpoint, getenv("AWS_ENDPOINT_URL_S3"), getenv("AWS_ENDPOINT_URL")); endpoint != "" {
		u, err := url.Parse(endpoint)
		if err != nil || !isEndpoint(u) || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("AWS_ENDPOINT_URL is not a URL such as https://storage.example.com")
		}
		host, options.Secure = u.Host, u.Scheme == "https"
		options.Region = cmp.Or(options.Region, "us-east-1") // compatible services expect this region, so there is no need to ask them for it
	}
	core, err := minio.NewCore(host, options)
	if err != nil {
		return nil, err
	}
	core.SetAppInfo("capture", "")
	return s3Service{core, bucket}, nil
}

func (s s3Service) checksum() string { return "SHA-256" }

func (s s3Service) list(ctx context.Context, folder string) (objects []object, folders []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the library's goroutine after an error
	for o := range s.core.Client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: folder}) {
		switch {
		case o.Err != nil:
			return nil, nil, o.Err
		case strings.HasSuffix(o.Key, "/"):
			folders = append(folders, o.Key)
		default:
			objects = append(objects, object{name: o.Key, size: o.Size, version: o.ETag, modified: o.LastModified})
		}
	}
	return objects, folders, nil
}

func (s s3Service) get(ctx context.Context, name, version string, offset int64) (io.ReadCloser, object, error) {
	var o minio.GetObjectOptions
	if offset > 0 {
		o.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	if version != "" {
		o.Set("If-Match", `"`+version+`"`)
	}
	body, info, _, err := s.core.GetObject(ctx, s.bucket, name, o)
	if err != nil {
		return nil, object{}, err
	}
	return body, object{name: name, size: offset + info.Size, version: info.ETag, modified: info.LastModified}, nil
}

func (s s3Service) put(ctx context.Context, name string, data []byte, c condition) (string, error) {
	// Without this option, on a connection without TLS, the library would sign each chunk and would not send the SHA-256.
	options := minio.PutObjectOptions{DisableContentSha256: true}
	if c.absent {
		options.SetMatchETagExcept("*")
	}
	if c.version != "" {
		options.SetMatchETag(c.version)
	}
	m, sum := checksums(data)
	if c.spoiled {
		m, sum = "", strings.Repeat("0", len(sum))
	}
	info, err := s.core.PutObject(ctx, s.bucket, name, bytes.NewReader(data), int64(len(data)), m, sum, options)
	return info.ETag, err
}

// checksums returns the MD5 of the data in base64, and the SHA-256 in hexadecimal digits. The service compares both with the
// data that it receives. The SHA-256 is part of the signature.
func checksums(data []byte) (md5Base64, sha256Hex string) {
	m, s := md5.Sum(data), sha256.Sum256(data)
	return base64.StdEncoding.EncodeToString(m[:]), hex.EncodeToString(s[:])
}

func (s s3Service) remove(ctx context.Context, name string) error {
	return s.core.Client.RemoveObject(ctx, s.bucket, name, minio.RemoveObjectOptions{})
}

func (s s3Service) removeAbandoned(ctx context.Context, folder string, before time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for u := range s.core.Client.ListIncompleteUploads(ctx, s.bucket, folder, true) {
		if u.Err != nil {
			return u.Err
		}
		if u.Initiated.Before(before) {
			if err := s.core.AbortMultipartUpload(ctx, s.bucket, u.Key, u.UploadID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s s3Service) create(ctx context.Context, name string) (upload, error) {
	id, err := s.core.NewMultipartUpload(ctx, s.bucket, name, minio.PutObjectOptions{})
	return &s3Upload{service: s, name: name, id: id}, err
}

// s3Upload is a multipart upload that is not complete yet.
type s3Upload struct {
	service s3Service
	name    string
	id      string
	parts   []minio.CompletePart
}

func (u *s3Upload) part(ctx context.Context, number int, data []byte) error {
	m, sum := checksums(data)
	p, err := u.service.core.PutObjectPart(ctx, u.service.bucket, u.name, u.id, number, bytes.NewReader(data), int64(len(data)),
		minio.PutObjectPartOptions{Md5Base64: m, Sha256Hex: sum, DisableContentSha256: true})
	if err == nil {
		u.parts = append(u.parts[:number-1], minio.CompletePart{PartNumber: number, ETag: p.ETag})
	}
	return err
}

func (u *s3Upload) commit(ctx context.Context, c condition) error {
	var options minio.PutObjectOptions
	if c.absent {
		options.SetMatchETagExcept("*")
	}
	_, err := u.service.core.CompleteMultipartUpload(ctx, u.service.bucket, u.name, u.id, u.parts, options)
	return err
}

func (u *s3Upload) abort(ctx context.Context) {
	_ = u.service.core.AbortMultipartUpload(ctx, u.service.bucket, u.name, u.id) // if this fails, removeAbandoned removes the parts later
}
