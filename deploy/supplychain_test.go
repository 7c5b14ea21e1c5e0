package deploy_test

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// runMake runs make in a folder, with the variables env in addition to the test's own environment.
func runMake(t *testing.T, folder string, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("make", append([]string{"--no-print-directory", "-C", folder}, args...)...)
	// The test itself may run under make, whose variables must not change the result.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !slices.Contains([]string{"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "VERSION", "COMMIT", "CI", "GITHUB_ACTIONS"}, name) {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestMakeExecutesNoTagName checks that make does not execute the name of a tag. Everybody who may push a tag chooses its
// name, and git allows names that are shell commands.
func TestMakeExecutesNoTagName(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program twice")
	}
	// The clone contains a small program in place of capture, because it builds faster. Everything else that the recipes use
	// is real.
	clone := t.TempDir()
	for _, name := range []string{"Makefile", "README.md", "deploy/capture.service", "deploy/capture@.service"} {
		writeFile(t, filepath.Join(clone, name), readFile(t, name))
	}
	writeFile(t, filepath.Join(clone, "go.mod"), "module capture\n")
	writeFile(t, filepath.Join(clone, "cmd/capture/main.go"), "package main\n\nfunc main() {}\n")
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-C", clone, "-c", "user.name=test", "-c", "user.email=test@localhost"}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args, err, out)
		}
	}
	git("init", "--quiet")
	git("add", ".")
	git("commit", "--quiet", "--message", "test")
	for _, tag := range []string{"v1';touch${IFS}pwned;'", "v2$(touch${IFS}pwned)`touch${IFS}pwned`\""} {
		git("tag", tag)
		for _, target := range []string{"build", "release"} {
			out, err := runMake(t, clone, nil, target, "PLATFORMS=linux/amd64")
			if err != nil {
				t.Errorf("tag %s: make %s: %v\n%s", tag, target, err, out)
			}
			var pwned []string
			_ = filepath.WalkDir(clone, func(path string, _ fs.DirEntry, _ error) error {
				if filepath.Base(path) == "pwned" {
					pwned = append(pwned, path)
				}
				return nil
			})
			if pwned != nil {
				t.Fatalf("tag %s: make %s executed its name: found %s", tag, target, pwned)
			}
		}
		git("tag", "--delete", tag)
	}
	for _, target := range []string{"build", "release"} {
		out, err := runMake(t, clone, []string{"VERSION=1 -linkmode=external"}, target, "PLATFORMS=linux/amd64")
		if err == nil || !strings.Contains(out, "VERSION and COMMIT may only have") {
			t.Errorf("make %s with a flag in VERSION: %v\n%s", target, err, out)
		}
	}
}

// TestUnreachableVulnerabilityDatabaseFailsOnGitHubOnly checks what happens if nothing can be checked because the vulnerability
// database is unreachable. GitHub's runners can reach the database, so the check must fail there. Elsewhere, the check only
// prints that nothing has been checked.
func TestUnreachableVulnerabilityDatabaseFailsOnGitHubOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("loads packages several times")
	}
	// Build govulncheck first: below, the proxy of Go modules is unreachable, too, so a new machine could not download it.
	build := exec.Command("go", "tool", "-n", "govulncheck")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go tool -n govulncheck: %v\n%s", err, out)
	}
	for _, tc := range []struct {
		env  []string
		fail bool
	}{
		{[]string{"CI=true"}, false}, // .ci/run on another machine
		{[]string{"CI=true", "GITHUB_ACTIONS=true"}, true},
	} {
		env := append(tc.env, "HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=")
		out, err := runMake(t, root, env, "vulnerabilities", "PACKAGES=./deploy")
		if (err != nil) != tc.fail || !strings.Contains(out, "NOT CHECKED") {
			t.Errorf("%v: error %v\n%s", tc.env, err, out)
		}
	}
}

// workflow contains the parts of a file in .github/workflows that the tests need.
type workflow struct {
	Permissions map[string]string
	Jobs        map[string]struct {
		If          string
		Permissions map[string]string
		Steps       []struct{ Uses, Run string }
	}
}

func workflows(t *testing.T) map[string]workflow {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, ".github/workflows/*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no workflows: %v", err)
	}
	files := map[string]workflow{}
	for _, path := range paths {
		var w workflow
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, &w); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		files[filepath.Base(path)] = w
	}
	return files
}

func TestActionsArePinnedByCommit(t *testing.T) {
	pinned := regexp.MustCompile(`^\s*(- )?uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	found := 0
	for name := range workflows(t) {
		for line := range strings.Lines(readFile(t, filepath.Join(".github/workflows", name))) {
			if strings.Contains(line, "uses:") {
				found++
				if !pinned.MatchString(strings.TrimRight(line, "\n")) {
					t.Errorf("%s: not pinned by a commit with its version in a comment: %s", name, line)
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("found only %d actions", found)
	}
}

// TestWorkflowCommandsContainNoExpression checks that no script of a workflow contains a ${{ }} expression. GitHub puts the
// value of an expression into the script before the shell reads the script. Commands in the name of a tag or branch would
// then run.
func TestWorkflowCommandsContainNoExpression(t *testing.T) {
	for name, w := range workflows(t) {
		if !maps.Equal(w.Permissions, map[string]string{"contents": "read"}) {
			t.Errorf("%s: jobs may by default %v", name, w.Permissions)
		}
		for job, j := range w.Jobs {
			if j.Permissions != nil && !strings.HasPrefix(job, "publish") {
				t.Errorf("%s: job %s has permissions of its own", name, job)
			}
			if strings.HasPrefix(job, "publish") && j.If != "startsWith(github.ref, 'refs/tags/v')" {
				t.Errorf("%s: job %s runs if %q, not only for a tag", name, job, j.If)
			}
			for _, step := range j.Steps {
				if strings.Contains(step.Run, "${{") {
					t.Errorf("%s: job %s: an expression in a command: %s", name, job, step.Run)
				}
			}
		}
	}
}

// unpinnedImages lists the images that may have a tag without a digest, each with the reason. docs/security.md lists the
// images whose reason begins with "moves".
var unpinnedImages = map[string]string{
	"golang:1.26-bookworm":               "moves with Go's security releases; builds the image only, not the release",
	"postgres:18":                        "moves with Postgres' security releases",
	"capture:latest":                     "built from this repository",
	"registry.example.com/capture:1.0.0": "an example, to be replaced",
}

func TestImagesArePinnedByDigest(t *testing.T) {
	image := regexp.MustCompile(`(?m)(?:^\s*image: (?:\$\{\w+:-)?|^FROM (?:--platform=\S+ )?|docker run .*(?:\n\s+)?\s)((?:[a-z0-9.-]+/)*[a-z0-9.-]+:[\w.-]+(?:@sha256:[0-9a-f]{64})?)`)
	used := map[string]bool{}
	for _, path := range []string{
		"Dockerfile", "docker-compose.yml", "deploy/compose.app.yml", "deploy/compose.existing.yml", "deploy/compose.token.yml",
		"deploy/kubernetes.yaml", "deploy/check-compose.sh", ".github/workflows/ci.yml",
	} {
		for _, m := range image.FindAllStringSubmatch(readFile(t, path), -1) {
			used[m[1]] = true
			if !strings.Contains(m[1], "@sha256:") && unpinnedImages[m[1]] == "" {
				t.Errorf("%s: image %s is not pinned by digest", path, m[1])
			}
		}
	}
	docs := readFile(t, "docs/security.md")
	for name, why := range unpinnedImages {
		if strings.HasPrefix(why, "moves") && !strings.Contains(docs, "`"+name+"`") {
			t.Errorf("docs/security.md does not say that %s is not pinned", name)
		}
		if !used[name] {
			t.Errorf("image %s is allowed without a digest, but not used", name)
		}
	}
	if n := len(used) - len(unpinnedImages); n < 2 {
		t.Errorf("found only %d images with a digest: %v", n, slices.Sorted(maps.Keys(used)))
	}
}
