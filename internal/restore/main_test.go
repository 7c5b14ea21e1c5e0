package restore_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"capture/internal/pgserver"
	"capture/internal/restore"
	"capture/internal/statefile/statefiletest"
	"capture/internal/verify"
)

func TestMain(m *testing.M) { os.Exit(pgserver.Main(m.Run)) }

// db is a database into which a single test restores files.
type db struct{ *statefiletest.DB }

func newDB(t *testing.T) *db { return &db{statefiletest.NewDB(t)} }

// sub returns the same database for a subtest.
func (d *db) sub(t *testing.T) *db {
	return &db{&statefiletest.DB{T: t, Config: d.Config, Conn: d.Conn}}
}

// asRole returns the same database, connected as another role.
func (d *db) asRole(role string) *db { return &db{d.As(role)} }

// newRole creates a role that may log in and has no other right. The role and what it owns are dropped at the end of the test.
func (d *db) newRole() (name string) {
	d.Helper()
	name = "restorer_" + d.Query("SELECT substr(md5(random()::text), 1, 8)")
	d.Exec("CREATE ROLE " + name + " LOGIN")
	d.Cleanup(func() { d.Exec("DROP OWNED BY " + name + "; DROP ROLE " + name) })
	return name
}

// version returns the server's major version.
func (d *db) version() (n int) {
	if _, err := fmt.Sscan(d.Conn.PgConn().ParameterStatus("server_version"), &n); err != nil {
		d.Fatal(err)
	}
	return n
}

func (d *db) restore(o restore.Options) restore.Result {
	d.Helper()
	res, err := restore.Restore(context.Background(), d.Conn, o)
	if err != nil {
		d.Fatal(err)
	}
	return res
}

// wantRefused restores a file, and fails the test unless Restore returns an error with all of the words. The error must not
// contain "SECRET", which stands for a value of the file.
func (d *db) wantRefused(o restore.Options, words ...string) error {
	d.Helper()
	res, err := restore.Restore(context.Background(), d.Conn, o)
	if err == nil {
		d.Fatalf("restored: %+v", res)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			d.Errorf("the error does not say %q:\n%v", word, err)
		}
	}
	if strings.Contains(err.Error(), "SECRET") {
		d.Errorf("the error shows a value:\n%v", err)
	}
	return err
}

func (d *db) verify(o verify.Options) verify.Report {
	d.Helper()
	r, err := verify.Verify(context.Background(), o)
	if err != nil {
		d.Fatal(err)
	}
	return r
}
