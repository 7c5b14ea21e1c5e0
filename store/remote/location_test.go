package remote_test

import (
	"strings"
	"testing"

	"capture/internal/objectserver"
	"capture/store/remote"
)

func TestBadURLs(t *testing.T) {
	t.Parallel()
	env := map[string]string{"AWS_ACCESS_KEY_ID": "AKIDSECRET", "AWS_SECRET_ACCESS_KEY": "topsecret1", "AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_KEY": "dG9wc2VjcmV0MQ=="}
	for _, text := range []string{
		"", "s3:", "s3://", "s3://x", "s3://UPPER", "s3://bucket?sig=topsecret1", "s3://user:topsecret1@bucket/x", "s3://bucket/x#topsecret1", "gs://bucket/x",
		"azblob://", "azblob://a--b/x", "azblob://ab/x", "azblob://a-/x", "azblob://" + strings.Repeat("a-", 31) + "bc/x", "azblob://container/x?sv=1&sig=topsecret1", "file://", "file:///", "file://host/folder", "file:///x?endpoint=http://a",
		"s3://bucket?endpoint=ftp://x", "s3://bucket?endpoint=https://user:topsecret1@host", "https://account.blob.core.windows.net/container?sig=topsecret1",
		"s3://" + strings.Repeat("b", 64), "s3://bucket/a%00b", "s3://bucket/" + strings.Repeat("x", 600), "%zz", "/folder", "s3://bucket/x?region=a&topsecret1",
	} {
		_, err := remote.Open(text, objectserver.Getenv(env))
		switch {
		case err == nil:
			t.Errorf("%q was accepted", text)
		case strings.Contains(err.Error(), "topsecret1"):
			t.Errorf("the error for %q has the secret: %v", text, err)
		case !strings.Contains(err.Error(), "azblob://CONTAINER/PREFIX"):
			t.Errorf("the error for %q does not say what is accepted: %v", text, err)
		}
	}
	for _, text := range []string{
		"azblob://a-b/x", "azblob://abc", "azblob://" + strings.Repeat("a-", 31) + "b/x", "s3://a-b", "s3://" + strings.Repeat("b", 63),
	} {
		if _, err := remote.Open(text, objectserver.Getenv(env)); err != nil {
			t.Errorf("%q was refused: %v", text, err)
		}
	}
	for _, missing := range []struct {
		text string
		env  map[string]string
		want string
	}{
		{"azblob://container/x", nil, "AZURE_STORAGE_CONNECTION_STRING"},
		{"azblob://container/x", map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "AccountKey=topsecret1"}, "is not a connection string"},
		{"azblob://container/x", map[string]string{"AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_KEY": "topsecret1!"}, "AZURE_STORAGE_KEY is not"},
		{"azblob://container/x", map[string]string{"AZURE_STORAGE_ACCOUNT": "evil.example.com/", "AZURE_STORAGE_KEY": "dG9wc2VjcmV0MQ=="}, "AZURE_STORAGE_ACCOUNT"},
		{"s3://bucket", map[string]string{"AWS_ACCESS_KEY_ID": "AKIDSECRET"}, "AWS_SECRET_ACCESS_KEY"},
		{"s3://bucket", map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "topsecret1", "AWS_ENDPOINT_URL": "host:9000"}, "AWS_ENDPOINT_URL"},
	} {
		_, err := remote.Open(missing.text, objectserver.Getenv(missing.env))
		if err == nil || !strings.Contains(err.Error(), missing.want) || strings.Contains(err.Error(), "topsecret1") {
			t.Errorf("%s with %v: %v", missing.text, missing.env, err)
		}
	}
}
