package logical

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"

	"capture/capture/source"
	"capture/capture/sourcetest"
	"capture/internal/busy"
	"capture/internal/pgoutput"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

const (
	recordedDDL = `CREATE TYPE pair AS (x int, y text); CREATE TABLE t (id int PRIMARY KEY, s text, n numeric, b bool, a text[], c pair, z timestamptz, k text)`
	recordedOID = 16999 // OID of the table in the recordings
	pairOID     = 16998
)

// recordedTable returns the table of recordedDDL.
func recordedTable(immediate bool) *postgres.Table {
	text := rowjson.Type{OID: 25}
	number := rowjson.Type{Kind: rowjson.Number, OID: 23}
	column := func(name string, typ rowjson.Type) rowjson.Column {
		return rowjson.Column{Name: name, TypeName: name, TypeOID: typ.OID, Typmod: -1, Type: typ, Published: true}
	}
	return &postgres.Table{KeyImmediate: immediate, Shape: &rowjson.Shape{
		OID: recordedOID, Schema: "public", Table: "t", Key: []int{0},
		Columns: []rowjson.Column{
			column("id", number), column("s", text), column("n", rowjson.Type{Kind: rowjson.Number, OID: 1700}), column("b", rowjson.Type{Kind: rowjson.Bool, OID: 16}),
			column("a", rowjson.Type{Kind: rowjson.Array, OID: 1009, Elem: &text, Delim: ','}),
			column("c", rowjson.Type{Kind: rowjson.Composite, OID: pairOID, Fields: []rowjson.Field{{Name: "x", Type: number}, {Name: "y", Type: text}}}),
			column("z", rowjson.Type{Kind: rowjson.TimestampTZ, OID: 1184}), column("k", text),
		},
	}}
}

// recorded maps the name of a workload to its SQL statements. The messages that Postgres sends for these statements are the
// seeds of FuzzApply.
var recorded = map[string][]string{
	"default": {
		`INSERT INTO t VALUES (1, E'a\n"b\\', 1.50, true, '{NULL,"a b","{"}', '(1,"x ""y""")', '2025-06-17 16:58:00.5+02', NULL), (2, NULL, 'NaN', NULL, '{}', '(,)', '-infinity', '')`,
		`INSERT INTO t SELECT i, repeat(i::text, 3000), i / 7.0, i % 2 = 0, ARRAY[i::text], ROW(i, i)::pair, now(), 'k' FROM generate_series(3, 6) i`,
		`UPDATE t SET n = n + 1`, `UPDATE t SET id = id + 10 WHERE id > 4`, `DELETE FROM t WHERE id = 1`, `TRUNCATE t`,
		`BEGIN; INSERT INTO t (id) VALUES (1); SAVEPOINT a; INSERT INTO t (id) VALUES (2); ROLLBACK TO a; UPDATE t SET id = 3; COMMIT`,
	},
	"full": {
		`ALTER TABLE t REPLICA IDENTITY FULL`, `INSERT INTO t SELECT i, repeat(i::text, 3000), i, true, NULL, ROW(i, i)::pair, '0044-03-15 12:00+00 BC', 'k' FROM generate_series(1, 4) i`,
		`UPDATE t SET n = n + 1`, `DELETE FROM t WHERE id = 2`, `UPDATE t SET id = -id`,
	},
	"deferrable": {
		`ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id) DEFERRABLE, REPLICA IDENTITY FULL`, `INSERT INTO t (id, s) SELECT i, 's' || i FROM generate_series(1, 6) i`,
		`UPDATE t SET id = id + 1`, `UPDATE t SET id = 8 - id`,
	},
}

// TestRecordedStream applies the messages that a real server sends for the workloads in recorded. With CAPTURE_RECORD=1, the
// test also writes the messages to testdata/fuzz/FuzzApply.
func TestRecordedStream(t *testing.T) {
	for name, workload := range recorded {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := sourcetest.Connect(t, url)
			for _, sql := range []string{recordedDDL, "CREATE PUBLICATION p FOR TABLE t"} {
				if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
					t.Fatal(err)
				}
			}
			messages := record(t, url, func() {
				for _, sql := range workload {
					if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
						t.Fatal(err)
					}
				}
			})
			input := []byte{0}
			if name == "deferrable" {
				input[0] = 1
			}
			for _, m := range messages {
				input = append(binary.BigEndian.AppendUint32(input, uint32(len(m))), m...)
			}
			table, err := applyAll(t, input)
			if err != nil {
				t.Fatal(err)
			}
			conn.CheckRows(table.View(), "t", "id")
			if os.Getenv("CAPTURE_RECORD") != "" {
				seed := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", input)
				if err := os.WriteFile(filepath.Join("testdata", "fuzz", "FuzzApply", "recorded-"+name), []byte(seed), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// record returns the messages that pgoutput sends for the changes that f makes. The server may choose different OIDs for
// each recording. To make the messages comparable, record replaces the OID of the table with recordedOID, and the OID of the
// type named pair with pairOID.
func record(t *testing.T, url string, f func()) (messages [][]byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), busy.Limit(sourcetest.Patience))
	defer cancel()
	repl, err := postgres.ConnectReplication(ctx, newEnv(t, url).Database)
	if err != nil {
		t.Fatal(err)
	}
	defer repl.Close(context.Background())
	slot := "recorder_" + strings.ToLower(filepath.Base(t.Name()))
	if _, err := pglogrepl.CreateReplicationSlot(ctx, repl, slot, "pgoutput",
		pglogrepl.CreateReplicationSlotOptions{Temporary: true, Mode: pglogrepl.LogicalReplication}); err != nil {
		t.Fatal(err)
	}
	f()
	conn := sourcetest.Connect(t, url)
	var oid, pair uint32
	var end string
	if err := conn.QueryRow(ctx, "SELECT 't'::regclass::oid, 'pair'::regtype::oid, pg_current_wal_flush_lsn()::text").Scan(&oid, &pair, &end); err != nil {
		t.Fatal(err)
	}
	target, err := pglogrepl.ParseLSN(end)
	if err != nil {
		t.Fatal(err)
	}
	if err := pglogrepl.StartReplication(ctx, repl, slot, 0,
		pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names 'p'"}}); err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	for {
		msg, err := repl.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		data, ok := msg.(*pgproto3.CopyData)
		if !ok {
			t.Fatalf("%#v", msg)
		}
		if data.Data[0] == pglogrepl.PrimaryKeepaliveMessageByteID {
			if k, err := pglogrepl.ParsePrimaryKeepaliveMessage(data.Data[1:]); err != nil || k.ServerWALEnd >= target {
				return messages
			}
			continue
		}
		x, err := pglogrepl.ParseXLogData(data.Data[1:])
		if err != nil {
			t.Fatal(err)
		}
		m := bytes.Clone(x.WALData)
		for _, swap := range [][2]uint32{{oid, recordedOID}, {pair, pairOID}} {
			if strings.IndexByte("RYT", m[0]) >= 0 {
				m = bytes.ReplaceAll(m, be.AppendUint32(nil, swap[0]), be.AppendUint32(nil, swap[1]))
			} else if strings.IndexByte("IUD", m[0]) >= 0 && be.Uint32(m[1:]) == swap[0] {
				be.PutUint32(m[1:], swap[1])
			}
		}
		messages = append(messages, m)
	}
}

// applyAll applies the messages in input. The first byte of input decides whether the key is deferrable. The other bytes are
// the messages. Each message follows a number of 4 bytes, which is the message's length. applyAll checks that committed rows
// are JSON, and that no message is accepted without its last byte.
func applyAll(t *testing.T, input []byte) (*snapshot.Table, error) {
	t.Helper()
	if len(input) == 0 {
		return nil, pgoutput.ErrTruncated
	}
	tab := recordedTable(input[0]&1 == 0)
	enc, err := rowjson.NewEncoder(tab.Shape, true)
	if err != nil {
		t.Fatal(err)
	}
	table := snapshot.NewTable()
	table.Load(tab.Shape, snapshot.Origin{})
	table.Commit(snapshot.Position{})
	a := newApplier(table, tab, enc, nil)
	for rest := input[1:]; len(rest) >= 4; {
		n := int(min(uint64(binary.BigEndian.Uint32(rest)), uint64(len(rest)-4)))
		msg := rest[4 : 4+n : 4+n]
		rest = rest[4+n:]
		if rel, err := pgoutput.ParseRelation(msg); pgoutput.Kind(msg) == pgoutput.KindRelation && err == nil && tab.ReplicaIdentity == "" {
			tab.ReplicaIdentity = string(rel.Replica) // a Source has read the replica identity from the catalog before the stream begins
		}
		commit, err := a.apply(msg)
		if err != nil {
			return table, err
		}
		if commit != nil {
			checkCommit(t, table, tab, commit)
		}
		if len(msg) == 0 {
			continue
		}
		switch pgoutput.Kind(msg) {
		case pgoutput.KindRelation, pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete, pgoutput.KindTruncate:
			short := newApplier(snapshot.NewTable(), tab, enc, nil)
			short.columns, short.inTxn = a.columns, true
			if _, err := short.apply(msg[:len(msg)-1]); err == nil && isAboutTable(msg) {
				t.Fatalf("a message is accepted without its last byte: %.500q", msg)
			}
		}
	}
	return table, nil
}

// checkCommit checks the statistics of a commit, and the rows of the table after the commit.
func checkCommit(t *testing.T, table *snapshot.Table, tab *postgres.Table, commit *source.TxnStats) {
	t.Helper()
	fields := commit.LogFields(tab.Shape)
	if keys := fields[len(fields)-1].([]string); commit.Changes() < len(keys) {
		t.Errorf("%d keys for %d changes", len(keys), commit.Changes())
	}
	var b bytes.Buffer
	if _, err := table.View().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	var rows []json.RawMessage
	if err := json.Unmarshal(b.Bytes(), &rows); err != nil || len(rows) != table.View().Rows() || !utf8.Valid(b.Bytes()) {
		t.Fatalf("%d rows, %d in the file, %v:\n%.2000q", table.View().Rows(), len(rows), err, b.Bytes())
	}
}

// isAboutTable reports whether a message changes the recorded table. For a Relation or Truncate message, it always returns
// true.
func isAboutTable(msg []byte) bool {
	return strings.IndexByte("RT", msg[0]) >= 0 || len(msg) >= 5 && binary.BigEndian.Uint32(msg[1:]) == recordedOID
}

// FuzzApply applies arbitrary messages. A message may cause an error but no panic. The allocated memory must not exceed a limit
// that depends on the size of the input.
func FuzzApply(f *testing.F) {
	f.Fuzz(func(t *testing.T, input []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = applyAll(t, input)
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(64<<20+4096*len(input)); got > most {
			t.Errorf("%d bytes allocated for an input of %d", got, len(input))
		}
	})
}
