package verify_test

import (
	"context"
	"os"
	"testing"

	"capture/internal/pgserver"
	"capture/internal/restore"
	"capture/internal/statefile/statefiletest"
	"capture/internal/verify"
)

func TestMain(m *testing.M) { os.Exit(pgserver.Main(m.Run)) }

// db is a database whose tables a single test compares with files.
type db struct{ *statefiletest.DB }

func newDB(t *testing.T) *db { return &db{statefiletest.NewDB(t)} }

func (d *db) verify(o verify.Options) verify.Report {
	d.Helper()
	r, err := verify.Verify(context.Background(), o)
	if err != nil {
		d.Fatal(err)
	}
	return r
}

func (d *db) restore(o restore.Options) {
	d.Helper()
	if _, err := restore.Restore(context.Background(), d.Conn, o); err != nil {
		d.Fatal(err)
	}
}
