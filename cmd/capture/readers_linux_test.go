package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"capture/internal/pgserver"
)

// These are IDs of users and groups that probably do not exist on this machine.
const (
	serviceUser  = 64001
	readersGroup = 64002
	memberUser   = 64003
	otherUser    = 64004
)

// unitSetting returns the value of a setting in deploy/capture.service.
func unitSetting(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../deploy/capture.service")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?m)^"+name+"=(.*)$").FindAllStringSubmatch(string(text), -1)
	if len(m) != 1 {
		t.Fatalf("capture.service sets %s %d times", name, len(m))
	}
	return m[0][1]
}

// runAs runs a shell command as a user with a primary group and perhaps other groups, and returns the command's output.
func runAs(uid, gid uint32, groups []uint32, command string) (string, error) {
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestReadersGroupOfTheUnitReadsTheFileOnly checks that a member of the group of readers can read the file and its manifest,
// but no secret and no log, and can change nothing. capture.service gives the folder and the file to this group.
func TestReadersGroupOfTheUnitReadsTheFileOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start processes of other users")
	}
	if user, group := unitSetting(t, "User"), unitSetting(t, "Group"); user == group {
		t.Errorf("the readers' group %s is the service's own", group)
	}
	root, err := os.MkdirTemp("", "capture-readers-") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	// Create folders and credentials as systemd does before it starts the service.
	mkdir := func(name string, mode os.FileMode, uid, gid int) string {
		t.Helper()
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	octal := func(name string) os.FileMode {
		var mode os.FileMode
		for _, digit := range unitSetting(t, name) {
			mode = mode*8 + os.FileMode(digit-'0')
		}
		return mode
	}
	mkdir(".", 0o755, 0, 0)
	state := mkdir("state", octal("StateDirectoryMode"), serviceUser, readersGroup)
	usage := mkdir("usage", octal("LogsDirectoryMode"), serviceUser, readersGroup)
	errors := mkdir("errors", octal("LogsDirectoryMode"), serviceUser, readersGroup)
	credentials := mkdir("credentials", 0o500, serviceUser, 0)
	etc := mkdir("etc", 0o700, 0, 0)
	for path, uid := range map[string]int{
		filepath.Join(credentials, "pgpass"): serviceUser,
		filepath.Join(credentials, "token"):  serviceUser,
		filepath.Join(etc, "environment"):    0,
	} {
		if err := os.WriteFile(path, []byte("0123456789abcdef0123456789abcdef\n"), 0o400); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, 0); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(root, "capture")
	copyProgram(t, program)

	url := pgserver.Database(t)
	sql(t, url, "CREATE TABLE votes (vote_id serial PRIMARY KEY, comment text)", "INSERT INTO votes (comment) VALUES ('secret')")
	d := &daemon{t: t, path: filepath.Join(state, "feedback.json"), done: make(chan struct{})}
	d.cmd = exec.Command("sh", "-c", "umask "+unitSetting(t, "UMask")+`; exec "$0" run --listen=127.0.0.1:0`, program)
	d.cmd.Dir = state
	d.cmd.Env = []string{
		"DATABASE_URL=" + url, "PGPASSFILE=" + credentials + "/pgpass", "CAPTURE_TOKEN_FILE=" + credentials + "/token",
		"CAPTURE_OUTPUT=" + d.path, "CAPTURE_USAGE_LOG=" + usage + "/usage.log", "CAPTURE_ERROR_LOG=" + errors + "/error.log", noExitPause,
	}
	d.cmd.Stdout, d.cmd.Stderr = &d.stdout, &d.stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: serviceUser, Gid: readersGroup}}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.done)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.done
		if t.Failed() {
			t.Logf("stderr:\n%s", d.stderr.String())
		}
	})
	member := func(command string) (string, error) {
		return runAs(memberUser, memberUser, []uint32{readersGroup}, command)
	}
	eventually(t, "a member of the group reads the file", func() bool {
		d.alive()
		out, err := member("cat " + d.path)
		return err == nil && strings.Contains(out, "secret")
	})
	if out, err := member("cat " + filepath.Join(state, "feedback.manifest.json")); err != nil {
		t.Errorf("a member of the group cannot read the manifest: %s", out)
	}
	for _, command := range []string{
		"cat " + credentials + "/pgpass", "cat " + credentials + "/token", "cat " + etc + "/environment",
		"cat " + usage + "/usage.log", "cat " + errors + "/error.log",
		"cat " + d.path + ".lock", // without the right to open the file, nobody can lock it
		"echo >>" + d.path + ".lock", "rm -f " + d.path + ".lock",
		"echo >>" + d.path, "rm -f " + d.path, "touch " + state + "/planted", "touch " + usage + "/planted",
	} {
		if out, err := member(command); err == nil {
			t.Errorf("a member of the group may: %s: %.200s", command, out)
		}
	}
	for _, command := range []string{"cat " + d.path, "ls " + state, "ls " + usage} {
		if out, err := runAs(otherUser, otherUser, nil, command); err == nil {
			t.Errorf("another user may: %s: %.200s", command, out)
		}
	}
}
