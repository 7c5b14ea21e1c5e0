package deploy_test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// unitSettings returns the settings of a systemd unit, without comments and blank lines.
func unitSettings(text string) []string {
	var settings []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			settings = append(settings, line)
		}
	}
	return settings
}

// TestTemplateUnitEqualsTheUnit checks that the template unit has all settings of capture.service, including those that
// harden it. Only the description and the paths differ, so that two instances share no path.
func TestTemplateUnitEqualsTheUnit(t *testing.T) {
	paths := strings.NewReplacer(
		"a Postgres table", "a Postgres table (%i)", "/etc/capture/", "/etc/capture/%i/", "/var/lib/capture", "/var/lib/capture-%i",
		"/var/log/capture/", "/var/log/capture-%i/", "StateDirectory=capture", "StateDirectory=capture-%i",
		"LogsDirectory=capture/usage capture/errors", "LogsDirectory=capture-%i/usage capture-%i/errors")
	want, got := unitSettings(paths.Replace(readFile(t, "deploy/capture.service"))), unitSettings(readFile(t, "deploy/capture@.service"))
	if len(want) < 40 || !slices.Equal(got, want) {
		t.Errorf("capture@.service has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !strings.Contains(strings.Join(got, "\n"), "CapabilityBoundingSet=\n") {
		t.Error("no hardening found")
	}
}

// composeConfig lets Docker Compose merge the files into one configuration, and returns the services in it. It skips the
// test if Compose is not installed.
func composeConfig(t *testing.T, env []string, files ...string) map[string]map[string]any {
	t.Helper()
	if err := exec.Command("docker", "compose", "version").Run(); err != nil {
		t.Skip("Docker Compose is not installed")
	}
	args := []string{"compose", "--env-file", "/dev/null"}
	for _, file := range files {
		args = append(args, "-f", file)
	}
	command := exec.CommandContext(t.Context(), "docker", append(args, "config", "--format", "json")...)
	command.Dir = root
	command.Env = append(command.Environ(), env...)
	out, err := command.Output()
	if err != nil {
		t.Fatalf("docker compose config: %v", err)
	}
	var config struct{ Services map[string]map[string]any }
	if err := json.Unmarshal(out, &config); err != nil {
		t.Fatal(err)
	}
	return config.Services
}

// TestComposeRecipesAreYAML checks that the Compose files are YAML, and that the service of the second capture extends the
// service of the first. The test needs no Docker Compose.
func TestComposeRecipesAreYAML(t *testing.T) {
	for path, service := range map[string]string{"deploy/compose.second-table.yml": "capture-second", "deploy/compose.copies.yml": "capture"} {
		var file map[string]any
		if err := yaml.Unmarshal([]byte(readFile(t, path)), &file); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if field(file, "services", service, "environment") == nil {
			t.Errorf("%s: no environment of %s", path, service)
		}
		if base := field(file, "services", service, "extends", "service"); service != "capture" && base != "capture" {
			t.Errorf("%s: %s extends %v", path, service, base)
		}
	}
}

// volumesAndPorts returns the sources of a service's writable volumes and its published ports.
func volumesAndPorts(service map[string]any) (names []string) {
	for _, v := range list(service, "volumes") {
		if v["read_only"] != true {
			names = append(names, v["source"].(string))
		}
	}
	for _, p := range list(service, "ports") {
		names = append(names, p["host_ip"].(string)+":"+p["published"].(string))
	}
	return names
}

// TestComposeOfASecondTable checks that the second capture shares no volume and no port with the first capture, follows
// another table, and is confined in the same way.
func TestComposeOfASecondTable(t *testing.T) {
	services := composeConfig(t, []string{"CAPTURE_TABLE=votes", "CAPTURE_HEARTBEAT_URL=https://first.example.com"}, "docker-compose.yml", "deploy/compose.second-table.yml")
	first, second := services["capture"], services["capture-second"]
	for _, key := range []string{"cap_drop", "security_opt", "read_only", "pids_limit", "mem_limit", "image", "logging", "restart"} {
		a, _ := json.Marshal(first[key])
		b, _ := json.Marshal(second[key])
		if string(a) != string(b) || string(a) == "null" {
			t.Errorf("%s: %s and %s", key, a, b)
		}
	}
	a, b := volumesAndPorts(first), volumesAndPorts(second)
	if len(a) != 4 || len(b) != 4 || !strings.HasPrefix(b[3], "127.0.0.1:") {
		t.Errorf("three volumes and a port expected: %v and %v", a, b)
	}
	for _, name := range b {
		if slices.Contains(a, name) {
			t.Errorf("both have %s", name)
		}
	}
	env := second["environment"].(map[string]any)
	if env["CAPTURE_TABLE"] != "orders" || env["CAPTURE_HEARTBEAT_URL"] != "" || env["PGPASSFILE"] == "" {
		t.Errorf("%v", env)
	}
}

// TestComposeOfCopies checks that Compose passes on only the credentials that are set. An empty credential would take
// precedence over a managed identity.
func TestComposeOfCopies(t *testing.T) {
	services := composeConfig(t, []string{"CAPTURE_COPY_TO=s3://bucket/prefix", "AWS_ACCESS_KEY_ID=id"}, "docker-compose.yml", "deploy/compose.copies.yml")
	env := services["capture"]["environment"].(map[string]any)
	if env["CAPTURE_COPY_TO"] != "s3://bucket/prefix" || env["AWS_ACCESS_KEY_ID"] != "id" || env["AZURE_STORAGE_KEY"] != nil {
		t.Errorf("%v", env)
	}
}
