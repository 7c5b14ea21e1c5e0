package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
)

func TestParseWALPosition(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"0/0 8192 16777216", "0/0"},
		{"1/7000000 8192 16777216", "1/7000000"},  // the end of the last record, and of a segment
		{"1/7000018 8192 16777216", "1/7000000"},  // inside the header of a segment
		{"1/7000028 8192 16777216", "1/7000000"},  // directly after the header of a segment
		{"1/7000030 8192 16777216", "1/7000030"},  // after a record of 8 bytes
		{"1/7002018 8192 16777216", "1/7002000"},  // directly after the header of another page
		{"1/7002020 8192 16777216", "1/7002020"},  // after the last 8 bytes of a record
		{"1/7002028 8192 16777216", "1/7002028"},  // after the last 16 bytes of a record
		{"1/7100028 8192 1048576", "1/7100000"},   // a segment of 1 MB
		{"1/7100028 8192 16777216", "1/7100028"},  // the same position inside a larger segment
		{"1/7002018 16384 16777216", "1/7002018"}, // inside a page of 16 kB
		{"FFFFFFFF/FF000028 8192 16777216", "FFFFFFFF/FF000000"},
	} {
		if lsn, err := parseWALPosition(c.text); err != nil || lsn.String() != c.want {
			t.Errorf("%s: %s, %v; want %s", c.text, lsn, err, c.want)
		}
	}
	for _, text := range []string{"", "0/0", "0/0 8192", "0/0 0 16777216", "0/0 8192 0", "x/0 8192 16777216"} {
		if lsn, err := parseWALPosition(text); err == nil {
			t.Errorf("%q: %s, want an error", text, lsn)
		}
	}
}

// TestWALPositionIncludesLastBytes lets WAL records end at different places near the start of a WAL page. The position that
// capture reads must be the end of the record. If the record ends at the end of the previous page, this position is the
// start of the page, before its header.
func TestWALPositionIncludesLastBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server, because other sessions also write WAL")
	}
	server := pgserver.ForTest(t, pgserver.Options{})
	conn := connectTo(t, server.URL("postgres"))
	ctx := testContext(t)
	scan := func(sql string, arg, dst any) {
		t.Helper()
		if err := conn.QueryRow(ctx, sql, arg).Scan(dst); err != nil {
			t.Fatal(err)
		}
	}
	insertLSN := func() (lsn int64) {
		t.Helper()
		scan("SELECT (pg_current_wal_insert_lsn() - $1::pg_lsn)::bigint", "0/0", &lsn)
		return lsn
	}
	// appendRecord adds a record of n bytes to the WAL. n must be a multiple of 8. recordBytes is the length of the WAL record
	// of a message of 1000 bytes. The loop below measures this length.
	recordBytes := int64(0)
	appendRecord := func(n int64) {
		t.Helper()
		var end string
		scan("SELECT pg_logical_emit_message(false, 'p', repeat('x', $1::int))::text", 1000+n-recordBytes, &end)
	}
	for recordBytes == 0 { // repeat until both positions are on the same page
		before := insertLSN()
		appendRecord(0)
		if after := insertLSN(); before/8192 == after/8192 {
			recordBytes = after - before
		}
	}
	const page, header = 8192, 24
	for _, offset := range []int64{24, 32, 40, 48} {
		for try := 0; ; try++ {
			if try == 20 {
				t.Fatalf("no position with offset %d", offset)
			}
			n := page - insertLSN()%page + offset - header
			if n < recordBytes {
				n += page - header
			}
			appendRecord(n)
			at := insertLSN()
			if at%page != offset || at%(16<<20) < page {
				continue // the server has also written a record or begun a segment, so try again
			}
			want := at
			if offset == header {
				want = at - header
			}
			compareWALPosition(t, conn, want)
			break
		}
	}
	var end string
	scan("SELECT pg_switch_wal()::text WHERE $1", true, &end)
	at := insertLSN()
	if at%(16<<20) != 40 {
		t.Fatalf("the new segment begins at %X", at)
	}
	compareWALPosition(t, conn, at-40)
}

// compareWALPosition checks that LoadInsertLSN and LoadWALPosition return want on an idle server.
func compareWALPosition(t *testing.T, conn *pgx.Conn, want int64) {
	t.Helper()
	inserted, err := LoadInsertLSN(testContext(t), conn)
	if err != nil || int64(inserted) != want {
		t.Errorf("the insert position is %s, %v; want %X", inserted, err, want)
	}
	position, _, err := LoadWALPosition(testContext(t), conn)
	if err != nil || int64(position) != want {
		t.Errorf("the WAL position is %s, %v; want %X", position, err, want)
	}
}
