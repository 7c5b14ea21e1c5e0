package capture

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"capture/internal/pgserver"
	"capture/internal/verify"
)

// TestFirstChange: soon after the first copy of a large table, there is a shadow file. The first change is therefore written
// by patching this file, and not by writing all rows again.
func TestFirstChange(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (bot_response) SELECT repeat(md5(i::text), 3000) FROM generate_series(1, 90) i") // 90 rows of 96 kB
	cfg := config(t, url)
	registry := prometheus.NewRegistry()
	cfg.Registry = registry
	bytesWritten := func() int64 {
		t.Helper()
		return counter(t, registry, "capture_flush_written_bytes_total")
	}
	d := start(t, cfg)
	d.ready()
	var at unix.Statfs_t
	if err := unix.Statfs(d.path, &at); err != nil {
		t.Fatal(err)
	}
	if at.Type != unix.EXT4_SUPER_MAGIC && at.Type != unix.XFS_SUPER_MAGIC {
		t.Skipf("on a file system of type %x no file is patched", at.Type)
	}
	eventually(t, "there is a shadow file", func() error {
		is, err := os.ReadFile(d.path + ".tmp")
		want, werr := os.ReadFile(d.path)
		if err := errors.Join(err, werr); err != nil {
			return err
		}
		if !bytes.Equal(is, want) {
			return fmt.Errorf("%d bytes that are not the file's", len(is))
		}
		return nil
	})
	before := bytesWritten()
	exec(t, conn, "UPDATE votes SET comment = 'changed' WHERE vote_id = 7")
	eventually(t, "the change is written", func() error { // another flush may come first and write no rows, only a new position
		if bytesWritten() == before {
			return errors.New("no bytes are written")
		}
		return nil
	})
	if n, all := bytesWritten()-before, d.Status().File.Bytes; n > all/4 {
		t.Errorf("%d bytes of %d were written for the first change", n, all)
	}
	if r, err := verify.Verify(t.Context(), verify.Options{Path: d.path}); err != nil || !r.OK {
		t.Errorf("verify says %+v, %v", r, err)
	}
}
