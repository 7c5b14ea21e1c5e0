package remote

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// azureService is a container of Azure Blob Storage.
type azureService struct{ container *container.Client }

// openAzure returns the service for a container. The credentials come from the environment variables that Azure's own tools
// read.
func openAzure(name, endpoint string, getenv func(string) string, transport http.RoundTripper) (service, error) {
	options := &container.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: &http.Client{Transport: transport},
		Retry:     policy.RetryOptions{MaxRetries: -1}, // no retries, because Location.retry repeats requests
		Telemetry: policy.TelemetryOptions{ApplicationID: "capture"},
	}}
	if text := getenv("AZURE_STORAGE_CONNECTION_STRING"); text != "" {
		client, err := container.NewClientFromConnectionString(text, name, options)
		if err != nil { // don't wrap the error: it might quote the string, which contains the key
			return nil, fmt.Errorf("AZURE_STORAGE_CONNECTION_STRING is not a connection string of a storage account")
		}
		return azureService{client}, nil
	}
	account := getenv("AZURE_STORAGE_ACCOUNT")
	if account == "" {
		return nil, fmt.Errorf("there are no credentials: set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and, " +
			"without a managed or workload identity, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN")
	}
	if endpoint == "" {
		if !isDNSLabel(account) {
			return nil, fmt.Errorf("AZURE_STORAGE_ACCOUNT is %q, which is not the name of a storage account", account)
		}
		endpoint = "https://" + account + ".blob.core.windows.net"
	}
	at := strings.TrimSuffix(endpoint, "/") + "/" + url.PathEscape(name)
	var client *container.Client
	var err error
	switch key, token := getenv("AZURE_STORAGE_KEY"), getenv("AZURE_STORAGE_SAS_TOKEN"); {
	case key != "":
		var shared *container.SharedKeyCredential
		if shared, err = container.NewSharedKeyCredential(account, key); err != nil {
			return nil, fmt.Errorf("AZURE_STORAGE_KEY is not the key of a storage account, which is in base64")
		}
		client, err = container.NewClientWithSharedKeyCredential(at, shared, options)
	case token != "":
		client, err = container.NewClientWithNoCredential(at+"?"+strings.TrimPrefix(token, "?"), options)
	default:
		var identity *azidentity.DefaultAzureCredential
		identity, err = azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
			ClientOptions: azcore.ClientOptions{Transport: &http.Client{Transport: transport}},
		})
		if err == nil {
			client, err = container.NewClient(at, identity, options)
		}
	}
	return azureService{client}, err
}

func (s azureService) checksum() string { return "MD5" }

func (s azureService) list(ctx context.Context, folder string) (objects []object, folders []string, err error) {
	pager := s.container.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{Prefix: &folder})
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, nil, err
		}
		for _, b := range page.Segment.BlobItems {
			o := object{name: *b.Name}
			if p := b.Properties; p != nil {
				o.size, o.modified, o.version = valueOf(p.ContentLength), valueOf(p.LastModified), string(valueOf(p.ETag))
			}
			objects = append(objects, o)
		}
		for _, p := range page.Segment.BlobPrefixes {
			folders = append(folders, *p.Name)
		}
	}
	return objects, folders, nil
}

// valueOf returns what p points at, or the zero value if p is nil. Azure's library has a pointer for each optional field.
func valueOf[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func (s azureService) get(ctx context.Context, name, version string, offset int64) (io.ReadCloser, object, error) {
	r, err := s.container.NewBlobClient(name).DownloadStream(ctx, &blob.DownloadStreamOptions{
		Range: blob.HTTPRange{Offset: offset}, AccessConditions: azureCondition(condition{version: version}),
	})
	if err != nil {
		return nil, object{}, err
	}
	o := object{name: name, version: string(valueOf(r.ETag)), size: offset + valueOf(r.ContentLength), modified: valueOf(r.LastModified)}
	return r.Body, o, nil
}

func (s azureService) put(ctx context.Context, name string, data []byte, c condition) (string, error) {
	sum := md5.Sum(data)
	if c.spoiled {
		sum[0]++
	}
	r, err := s.container.NewBlockBlobClient(name).Upload(ctx, streaming.NopCloser(bytes.NewReader(data)), &blockblob.UploadOptions{
		TransactionalValidation: blob.TransferValidationTypeMD5(sum[:]), AccessConditions: azureCondition(c),
	})
	return string(valueOf(r.ETag)), err
}

func azureCondition(c condition) *blob.AccessConditions {
	m := &blob.ModifiedAccessConditions{}
	if any := azcore.ETagAny; c.absent {
		m.IfNoneMatch = &any
	}
	if tag := azcore.ETag(c.version); c.version != "" {
		m.IfMatch = &tag
	}
	return &blob.AccessConditions{ModifiedAccessConditions: m}
}

func (s azureService) remove(ctx context.Context, name string) error {
	_, err := s.container.NewBlobClient(name).Delete(ctx, nil)
	return err
}

// removeAbandoned does nothing: the service itself removes blocks that were not committed within a week.
func (s azureService) removeAbandoned(context.Context, string, time.Time) error { return nil }

func (s azureService) create(_ context.Context, name string) (upload, error) {
	return &azureUpload{blob: s.container.NewBlockBlobClient(name), salt: randomWord()}, nil
}

// azureUpload is a list of blocks that are staged and not committed yet. Two uploads under one name do not mix, because the
// names of their blocks begin with different salts.
type azureUpload struct {
	blob   *blockblob.Client
	salt   string
	blocks []string
}

func (u *azureUpload) part(ctx context.Context, number int, data []byte) error {
	id := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s-%08d", u.salt, number))
	sum := md5.Sum(data)
	_, err := u.blob.StageBlock(ctx, id, streaming.NopCloser(bytes.NewReader(data)), &blockblob.StageBlockOptions{
		TransactionalValidation: blob.TransferValidationTypeMD5(sum[:]),
	})
	if err == nil {
		u.blocks = append(u.blocks[:number-1], id)
	}
	return err
}

func (u *azureUpload) commit(ctx context.Context, c condition) error {
	_, err := u.blob.CommitBlockList(ctx, u.blocks, &blockblob.CommitBlockListOptions{AccessConditions: azureCondition(c)})
	return err
}

func (u *azureUpload) abort(context.Context) {}
