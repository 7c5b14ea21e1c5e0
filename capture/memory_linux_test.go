package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capture/internal/pgserver"
)

// largeTable creates a table of votes that does not fit into the minimum memory for rows. It returns a function that runs a
// statement.
func largeTable(t *testing.T, url string) (query func(sql string)) {
	conn := connect(t, url)
	table(t, conn, 0)
	query = func(sql string) {
		t.Helper()
		exec(t, conn, sql)
	}
	query("INSERT INTO votes (user_query, bot_response) SELECT 'question ' || i, repeat(md5(i::text), 60) FROM generate_series(1, 3400) i")
	return query
}

// TestTableLargerThanMemory follows a table most of whose rows are spilled. The file equals the table after changes of rows
// all over the table, after a change of its definition, and after a transaction that replaces all rows.
func TestTableLargerThanMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("fills tables that are larger than the memory")
	}
	t.Parallel()
	for _, source := range []string{"logical", "notify", "poll"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			query := largeTable(t, url)
			cfg := config(t, url)
			cfg.Source, cfg.MemoryLimit = source, 1 // the limit is so low that rows get only the minimum memory
			d := start(t, cfg)
			d.ready()
			conn := connect(t, url)
			m := d.Status().Memory
			if m == nil || m.Spilled < 2<<20 || m.Resident > m.Limit {
				t.Errorf("not spilled: %+v", m)
			}
			// The DELETE removes too few rows to count as a loss. Otherwise, keeping the state before the loss would take much
			// processor time.
			for _, sql := range []string{
				`DO $$ BEGIN FOR i IN 1..200 LOOP
					UPDATE votes SET comment = 'changed ' || i WHERE vote_id = 1 + mod(i * 7919, 3400);
					IF mod(i, 20) = 0 THEN COMMIT; END IF;
				END LOOP; END $$`,
				`DO $$ BEGIN UPDATE votes SET bot_response = reverse(bot_response) WHERE mod(vote_id, 3) = 0; COMMIT;
					DELETE FROM votes WHERE mod(vote_id, 50) <> 0 AND vote_id BETWEEN 500 AND 800; COMMIT;
					UPDATE votes SET vote_id = -vote_id WHERE mod(vote_id, 97) = 0; END $$`,
				"ALTER TABLE votes ADD COLUMN extra int DEFAULT 7",
				`DO $$ BEGIN TRUNCATE votes; INSERT INTO votes (user_query, bot_response)
					SELECT 'again', repeat(md5(i::text), 60) FROM generate_series(1, 3000) i; END $$`,
			} {
				query(sql)
				d.flushAndCompare(conn, "votes", "vote_id")
			}
			if n := d.said("spilled rows are lost; copying the table again"); n > 0 {
				t.Error("rows were lost on the way")
			}
		})
	}
}

// TestSpillFileDamaged: somebody writes into the spill file. capture notices, writes no wrong row into feedback.json, and
// copies the table again.
func TestSpillFileDamaged(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a table that is larger than the memory")
	}
	t.Parallel()
	url := pgserver.Database(t)
	query := largeTable(t, url)
	cfg := config(t, url)
	cfg.MemoryLimit = 1
	d := start(t, cfg)
	d.ready()
	conn := connect(t, url)
	d.flushAndCompare(conn, "votes", "vote_id")
	before := len(d.fileRows())
	spoil(t, filepath.Dir(d.path))
	query("UPDATE votes SET comment = 'all over' WHERE mod(vote_id, 100) = 0")
	eventually(t, "the damage is noticed", func() error {
		if n := len(d.fileRows()); n != before {
			t.Fatalf("a file with %d rows instead of %d", n, before)
		}
		if d.said("spilled rows are lost; copying the table again") == 0 {
			return errors.New("not logged")
		}
		return nil
	})
	d.flushAndCompare(conn, "votes", "vote_id")
	d.ready()
}

// TestLargeTransactionSpillsOldRows: without a memory limit, a transaction that changes all rows moves old rows to the spill
// file. The file equals the table afterwards.
func TestLargeTransactionSpillsOldRows(t *testing.T) {
	if testing.Short() {
		t.Skip("changes all rows of a large table")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 0)
	exec(t, conn, "INSERT INTO votes (user_query, bot_response) SELECT 'question ' || i, repeat(md5(i::text), 200) FROM generate_series(1, 2800) i") // 18 MB, because 16 MB of old rows may stay in memory
	d := start(t, config(t, url))
	d.ready()
	if files := namelessFiles(t, filepath.Dir(d.path)); len(files) > 0 {
		t.Fatalf("the first copy has a spill file: %v", files)
	}
	exec(t, conn, "UPDATE votes SET bot_response = reverse(bot_response)")
	d.flushAndCompare(conn, "votes", "vote_id")
	if len(namelessFiles(t, filepath.Dir(d.path))) == 0 {
		t.Error("there is no spill file; it needs a local disk with a fifth of its space free, and no memory limit on this process")
	}
	if n := d.said("spilled rows are lost; copying the table again"); n > 0 {
		t.Error("rows were lost on the way")
	}
}

// namelessFiles returns the paths in /proc of files that this process has unlinked from a folder and still has open.
func namelessFiles(t *testing.T, folder string) (paths []string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		name := filepath.Join("/proc/self/fd", fd.Name())
		if target, err := os.Readlink(name); err == nil && strings.HasPrefix(target, folder+"/") && strings.HasSuffix(target, " (deleted)") {
			paths = append(paths, name)
		}
	}
	return paths
}

// spoil damages the files that namelessFiles returns. A spill file is such a file.
func spoil(t *testing.T, folder string) {
	t.Helper()
	found := false
	for _, name := range namelessFiles(t, folder) {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("its mode is %s", mode)
		}
		for at := int64(100); at < info.Size(); at += 4096 {
			if _, err := f.WriteAt([]byte("damaged"), at); err != nil {
				t.Fatal(err)
			}
		}
		found = true
	}
	if !found {
		t.Fatal("there is no such file")
	}
}

// TestNoRoomForRows: the rows do not fit into memory, and the volume has no room for the rest. The status gives the reason and
// a remedy, no process is killed, and capture continues when there is room.
func TestNoRoomForRows(t *testing.T) {
	if testing.Short() {
		t.Skip("fills tables that are larger than the memory")
	}
	t.Parallel()
	if !mayMount() {
		t.Skip("nothing can be mounted here; the package snapshot's tests stand in for the full volume")
	}
	url := pgserver.Database(t)
	largeTable(t, url)
	dir := t.TempDir()
	c := startChildIn(t, url, filepath.Join(dir, "feedback.json"), &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS},
		childMounts+"="+dir, "GOMEMLIMIT=32MiB")
	c.says("unwell", "do not fit into memory", "no space left", "free some space there, or allow more memory")
	c.remount("size=200m")
	c.says("ready")
	inside := fmt.Sprintf("/proc/%d/root%s", c.cmd.Process.Pid, dir)
	sameFile(t, filepath.Join(inside, "feedback.json"), oracle(t, connect(t, url), "votes", "vote_id"))
	if code := c.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
