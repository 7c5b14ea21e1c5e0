package remote

import (
	"net/url"
	"slices"
	"testing"
)

// TestSecretsInAllSpellings checks that a signature is hidden both in the spelling that the environment variable has, and in
// the spelling that a client may write into a URL.
func TestSecretsInAllSpellings(t *testing.T) {
	for _, given := range []string{"topsecret%2babcd%2fEFGH%3d", "topsecret%2Babcd%2FEFGH%3D", "topsecret+abcd/EFGH="} {
		env := map[string]string{"AZURE_STORAGE_SAS_TOKEN": "sv=2024-01-01&sig=" + given}
		secrets := secretsOf(func(name string) string { return env[name] })
		for _, want := range []string{given, "topsecret+abcd/EFGH=", url.QueryEscape("topsecret+abcd/EFGH=")} {
			if !slices.Contains(secrets, want) {
				t.Errorf("%s: %q is not hidden", given, want)
			}
		}
	}
}
