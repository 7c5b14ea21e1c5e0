package objectserver

import (
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
)

// withoutDelete returns environment variables with new credentials that do not allow deletion: a SAS token for Azure, and a
// second user for S3, whose rights the bucket's policy defines.
func (b *Bucket) withoutDelete(ctx context.Context, addr string) (map[string]string, error) {
	if b.Kind == "azblob" {
		return b.sasToken(addr, time.Now().Add(24*time.Hour))
	}
	const key = "WRITERACCESSKEY"
	secret := b.word[:len(b.word)/2] + "writer"
	b.Secrets = append(b.Secrets, secret)
	add := exec.CommandContext(ctx, b.cmd.Path, "admin", "--access", b.key, "--secret", b.word, "--endpoint-url", "http://"+b.Addr,
		"create-user", "--access", key, "--secret", secret, "--role", "user")
	if out, err := add.CombinedOutput(); err != nil && ctx.Err() == nil {
		// create-user also fails if the user exists already, because another test has created it. If list-users succeeds,
		// assume that this was the reason, and only set the policy.
		if list, lerr := exec.CommandContext(ctx, b.cmd.Path, "admin", "--access", b.key, "--secret", b.word,
			"--endpoint-url", "http://"+b.Addr, "list-users").CombinedOutput(); lerr != nil {
			return nil, fmt.Errorf("%w: %s; %s", err, out, list)
		}
	}
	client, err := b.S3()
	if err != nil {
		return nil, err
	}
	policy := fmt.Sprintf(`{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Principal": {"AWS": [%q]}, "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::%[2]s/*"},
		{"Effect": "Allow", "Principal": {"AWS": [%[1]q]}, "Action": ["s3:ListBucket"], "Resource": "arn:aws:s3:::%[2]s"}]}`, key, b.Name)
	if err := client.SetBucketPolicy(ctx, b.Name, policy); err != nil {
		return nil, err
	}
	env := b.env(addr)
	env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"] = key, secret
	return env, nil
}

// SASToken returns environment variables with a SAS token that is valid until the given time. The token allows reading, writing
// and listing, but no deletion.
func (b *Bucket) SASToken(t testing.TB, expires time.Time) map[string]string {
	t.Helper()
	env, err := b.sasToken(b.Addr, expires)
	if err != nil {
		t.Fatalf("create a SAS token: %v", err)
	}
	return env
}

func (b *Bucket) sasToken(addr string, expires time.Time) (map[string]string, error) {
	shared, err := container.NewSharedKeyCredential(b.key, b.word)
	if err != nil {
		return nil, err
	}
	query, err := sas.BlobSignatureValues{
		Protocol: sas.ProtocolHTTPSandHTTP, ExpiryTime: expires.UTC(), ContainerName: b.Name,
		Permissions: (&sas.ContainerPermissions{Read: true, Add: true, Create: true, Write: true, List: true}).String(),
	}.SignWithSharedKey(shared)
	if err != nil {
		return nil, err
	}
	token := query.Encode()
	if values, err := url.ParseQuery(token); err == nil {
		b.Secrets = append(b.Secrets, token, values.Get("sig"), url.QueryEscape(values.Get("sig")))
	}
	return map[string]string{"AZURE_STORAGE_ACCOUNT": b.key, "AZURE_STORAGE_SAS_TOKEN": token, "endpoint": "http://" + addr + "/" + b.key}, nil
}
