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

// binPatterns match the folders in which distributions install the server programs. Most of them are not in PATH.
var binPatterns = []string{
	"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                   // the PostgreSQL project's own RPMs
	"/usr/libexec/postgresql*",                           // Alpine
	"/opt/homebrew/opt/postgresql*/bin",                  // Homebrew on Apple silicon
	"/usr/local/opt/postgresql*/bin",                     // Homebrew on Intel
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",     // Homebrew on Linux
	"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
	"/usr/local/pgsql/bin",                               // built from source
}

// Bin returns the folder with the server programs (initdb and postgres). It searches PATH, then asks pg_config, then tries the
// folders that distributions use. If a distribution has installed several versions, Bin returns the folder of the highest
// version.
func Bin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		// initdb may be a link into the folder of the other programs, or a wrapper in that folder.
		if real, err := filepath.EvalSymlinks(path); err == nil && hasServerPrograms(filepath.Dir(real)) {
			return filepath.Dir(real), nil
		}
		if hasServerPrograms(filepath.Dir(path)) {
			return filepath.Dir(path), nil
		}
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		if dir := strings.TrimSpace(string(out)); hasServerPrograms(dir) {
			return dir, nil
		}
	}
	for _, pattern := range binPatterns {
		found, _ := filepath.Glob(pattern) // Glob fails only for a bad pattern
		found = slices.DeleteFunc(found, func(dir string) bool { return !hasServerPrograms(dir) })
		if len(found) > 0 {
			return slices.MaxFunc(found, func(a, b string) int { return majorVersion(a) - majorVersion(b) }), nil
		}
	}
	return "", errors.New("find PostgreSQL's server programs: no initdb in PATH or in the usual folders; " +
		"install them with `make postgres` or with the system's package (postgresql, postgresql-server)")
}

// hasServerPrograms reports whether a folder contains the programs that a server needs.
func hasServerPrograms(dir string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, program)); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

var digits = regexp.MustCompile(`\d+`)

// majorVersion returns the first number in a folder's path, or 0 if there is none.
func majorVersion(dir string) int {
	n, _ := strconv.Atoi(digits.FindString(dir))
	return n
}
