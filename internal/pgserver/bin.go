package pgserver

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// places are where distributions keep the server's programs outside of PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                   // the PostgreSQL project's own RPMs
	"/usr/libexec/postgresql*",                           // Alpine
	"/opt/homebrew/opt/postgresql*/bin",                  // Homebrew on Apple silicon
	"/usr/local/opt/postgresql*/bin",                     // Homebrew on Intel
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",     // Homebrew on Linux
	"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
	"/usr/local/pgsql/bin",                               // built from source
}

// Bin finds the folder with the server's programs (initdb and postgres): the one whose initdb is first in PATH, then
// what pg_config says, then the highest version in the places where systems keep them.
func Bin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		// What lies in PATH may be a link to a folder that has the other programs too, or a wrapper beside them.
		if real, err := filepath.EvalSymlinks(path); err == nil && complete(filepath.Dir(real)) {
			return filepath.Dir(real), nil
		}
		if complete(filepath.Dir(path)) {
			return filepath.Dir(path), nil
		}
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		if dir := strings.TrimSpace(string(out)); complete(dir) {
			return dir, nil
		}
	}
	for _, pattern := range places {
		found, _ := filepath.Glob(pattern) // the only error is a bad pattern
		found = slices.DeleteFunc(found, func(dir string) bool { return !complete(dir) })
		if len(found) > 0 {
			return slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }), nil
		}
	}
	return "", errors.New("find PostgreSQL's server programs: no initdb in PATH or in the usual places; " +
		"install them with `make postgres`, or the system's package (postgresql, postgresql-server)")
}

// complete says whether a folder has what a server needs.
func complete(dir string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, program)); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

var digits = regexp.MustCompile(`\d+`)

// version is the major version in a folder's name, 0 where it has none.
func version(dir string) int {
	n, _ := strconv.Atoi(digits.FindString(dir))
	return n
}
