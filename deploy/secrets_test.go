package deploy_test

import (
	"errors"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// composeService contains the parts of a service in a Compose file that the tests need.
type composeService struct {
	Environment map[string]*string
	Volumes     []string
	GroupAdd    []string `yaml:"group_add"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Ports       []string
}

func composeServices(t *testing.T, path string) map[string]composeService {
	t.Helper()
	var file struct{ Services map[string]composeService }
	if err := yaml.Unmarshal([]byte(readFile(t, path)), &file); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if len(file.Services) == 0 {
		t.Fatalf("%s: no services", path)
	}
	return file.Services
}

// TestComposeHasNoKnownPassword checks that the Compose files contain no password, and that each service mounts only the
// passwords that it needs. The test only reads the files. deploy/check-compose.sh attacks the running containers.
func TestComposeHasNoKnownPassword(t *testing.T) {
	services := composeServices(t, "docker-compose.yml")
	for name, s := range composeServices(t, "deploy/compose.app.yml") {
		services[name] = s
	}
	mayMount := map[string][]string{
		"passwords": {"passwords", "capture-password", "rag-password"},
		"postgres":  {"passwords"},
		"roles":     {"passwords"},
		"capture":   {"capture-password"},
		"rag-app":   {"rag-password"},
	}
	for name, s := range services {
		for key, value := range s.Environment {
			if strings.Contains(key, "PASSWORD") && !strings.HasSuffix(key, "_FILE") && value != nil {
				t.Errorf("service %s: %s has the value %q", name, key, *value)
			}
			if value != nil && strings.HasPrefix(*value, "${") && strings.HasSuffix(*value, ":-}") {
				t.Errorf("service %s: %s is set to nothing if it is not set", name, key)
			}
		}
		for _, v := range s.Volumes {
			volume, _, _ := strings.Cut(v, ":")
			if strings.Contains(volume, "password") && !slices.Contains(mayMount[name], volume) {
				t.Errorf("service %s mounts %s", name, volume)
			}
			if strings.Contains(volume, "password") && name != "passwords" && !strings.HasSuffix(v, ":ro") {
				t.Errorf("service %s may write %s", name, volume)
			}
		}
		if name == "rag-app" {
			if !slices.Contains(s.GroupAdd, "65532") {
				t.Error("the application does not have the group that can read the file")
			}
			continue
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("service %s: capabilities or privileges are not dropped", name)
		}
		if name != "capture" && s.Ports != nil {
			t.Errorf("service %s publishes %v", name, s.Ports)
		}
	}
	if user := services["postgres"].Environment["POSTGRES_USER"]; user != nil {
		t.Errorf("the superuser is %s", *user)
	}
}

// kubernetesObjects returns the manifests in deploy/kubernetes.yaml by kind.
func kubernetesObjects(t *testing.T) map[string]map[string]any {
	t.Helper()
	objects := map[string]map[string]any{}
	for decoder := yaml.NewDecoder(strings.NewReader(readFile(t, "deploy/kubernetes.yaml"))); ; {
		var object map[string]any
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _ := object["kind"].(string)
		if objects[kind] != nil || object["apiVersion"] == nil {
			t.Errorf("a second %s, or one without apiVersion", kind)
		}
		objects[kind] = object
	}
}

// field returns the value at a path of keys in a manifest, or nil.
func field(object any, path ...string) any {
	for _, key := range path {
		fields, _ := object.(map[string]any)
		object = fields[key]
	}
	return object
}

// list returns the maps in the list at a path of keys in a manifest.
func list(object any, path ...string) []map[string]any {
	var maps []map[string]any
	values, _ := field(object, path...).([]any)
	for _, v := range values {
		if m, ok := v.(map[string]any); ok {
			maps = append(maps, m)
		}
	}
	return maps
}

func TestKubernetesSecretsAreFiles(t *testing.T) {
	set := kubernetesObjects(t)["StatefulSet"]
	pod := field(set, "spec", "template", "spec")
	containers := list(pod, "containers")
	if len(containers) != 1 {
		t.Fatalf("%d containers", len(containers))
	}
	c := containers[0]
	for _, source := range list(c, "envFrom") {
		if source["secretRef"] != nil {
			t.Errorf("a secret becomes environment variables: %v", source)
		}
	}
	variables := map[string]string{}
	for _, v := range list(c, "env") {
		if v["valueFrom"] != nil {
			t.Errorf("the variable %s has a secret's value", v["name"])
		}
		variables[v["name"].(string)], _ = v["value"].(string)
	}
	// volumes maps the names of the pod's volumes to their kinds.
	volumes := map[string]string{}
	for _, v := range list(pod, "volumes") {
		secret, _ := field(v, "secret", "secretName").(string)
		volumes[v["name"].(string)] = "secret " + secret
		if mode, _ := field(v, "secret", "defaultMode").(int); mode&0o7 != 0 || mode == 0 {
			t.Errorf("every user can read the secret %s: %o", secret, mode)
		}
	}
	for _, claim := range list(set, "spec", "volumeClaimTemplates") {
		volumes[field(claim, "metadata", "name").(string)] = "claim"
	}
	mounts := map[string]string{}
	for _, m := range list(c, "volumeMounts") {
		kind := volumes[m["name"].(string)]
		if kind == "" {
			t.Errorf("no volume %s", m["name"])
		}
		if strings.HasPrefix(kind, "secret") && m["readOnly"] != true {
			t.Errorf("%s may be written", m["name"])
		}
		mounts[m["mountPath"].(string)] = kind
	}
	for variable, secret := range map[string]string{"PGPASSFILE": "secret capture-database", "CAPTURE_TOKEN_FILE": "secret capture-token"} {
		if got := mounts[filepath.Dir(variables[variable])]; got != secret {
			t.Errorf("%s=%s lies in %q, not in the %s", variable, variables[variable], got, secret)
		}
	}
	if field(pod, "securityContext", "fsGroup") != 65532 || field(pod, "securityContext", "runAsGroup") != 65532 {
		t.Error("readers cannot get the group of the files: fsGroup or runAsGroup is not 65532")
	}
}

func TestNetworkPolicyLimitsWhoMayConnect(t *testing.T) {
	objects := kubernetesObjects(t)
	policy := objects["NetworkPolicy"]
	labels, _ := field(objects["StatefulSet"], "spec", "template", "metadata", "labels").(map[string]any)
	selected, _ := field(policy, "spec", "podSelector", "matchLabels").(map[string]any)
	if len(selected) == 0 || !maps.Equal(selected, labels) {
		t.Errorf("the policy selects %v, the pod has the labels %v", selected, labels)
	}
	if types, _ := field(policy, "spec", "policyTypes").([]any); !slices.Equal(types, []any{"Ingress", "Egress"}) {
		t.Errorf("the policy is about %v", types)
	}
	rules := list(policy, "spec", "ingress")
	if len(rules) == 0 {
		t.Error("nobody may connect")
	}
	for _, rule := range rules {
		// A rule without `from`, or with an empty selector in its `from`, lets everybody in.
		from := list(rule, "from")
		if len(from) == 0 || len(list(rule, "ports")) == 0 {
			t.Errorf("everybody may connect, or to every port: %v", rule)
		}
		for _, peer := range from {
			for selector, value := range peer {
				if l, _ := field(value, "matchLabels").(map[string]any); len(l) == 0 {
					t.Errorf("%s selects everything", selector)
				}
			}
		}
	}
	for _, rule := range list(policy, "spec", "egress") {
		if len(list(rule, "ports")) == 0 {
			t.Errorf("capture may connect to every port: %v", rule)
		}
	}
}

// TestUnitTakesSecretsAsCredentials checks that capture.service passes its secrets as credentials of systemd. systemd reads
// the files as root, and copies them to a place where only the service's user can read them.
func TestUnitTakesSecretsAsCredentials(t *testing.T) {
	unit := readFile(t, "deploy/capture.service")
	for _, line := range []string{
		"LoadCredential=pgpass:/etc/capture/pgpass", "Environment=PGPASSFILE=%d/pgpass",
		"LoadCredential=token:/etc/capture/token", "Environment=CAPTURE_TOKEN_FILE=%d/token",
		"#   install -d -m 0700 /etc/capture", "#   install -m 0600 /dev/null /etc/capture/environment",
	} {
		if !strings.Contains(unit, "\n"+line) {
			t.Errorf("capture.service lacks %s", line)
		}
	}
	if strings.Contains(unit, "PGPASSWORD") || strings.Contains(unit, "0640") {
		t.Error("capture.service puts a password into the environment, or gives a group the secrets")
	}
}
