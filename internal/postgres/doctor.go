package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Level says how a [Finding] bears on capture.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn" // capture works, but less well than it could
	Fail Level = "fail" // nothing works until it is mended
)

// Finding is the result of one check of [Diagnose].
type Finding struct {
	Name   string `json:"name"` // the check's name, one to three words
	Level  Level  `json:"level"`
	Found  string `json:"found"`
	Reason string `json:"why,omitempty"`  // why it matters
	Hint   string `json:"mend,omitempty"` // SQL or a setting to paste, or what to do
}

// Diagnosis is what [Diagnose] found, and what follows from it.
type Diagnosis struct {
	Findings []Finding `json:"findings"`
	Source   string    `json:"source"` // that --source auto takes: "logical", "notify" or "poll"; "" where nothing works
}

// LocalResources are what the machine that runs capture has to spare, in bytes; 0 means unknown.
type LocalResources struct {
	Memory int64 // that capture may use
	Disk   int64 // free where feedback.json lies
}

// Diagnose checks everything about the database that capture depends on, changing nothing. A database that cannot be
// reached is a finding as well.
func Diagnose(ctx context.Context, cfg *pgx.ConnConfig, name Name, local LocalResources) Diagnosis {
	d := doctor{cfg: cfg, local: local, logical: true}
	if d.connection(ctx) {
		defer func() { _ = d.conn.Close(context.WithoutCancel(ctx)) }()
		if d.server(ctx) && d.readTable(ctx, name) {
			d.Source = "poll"
			d.replication(ctx)
			d.exportedSnapshots()
			d.limits(ctx)
			d.publication(ctx)
			d.notify(ctx)
			d.size(ctx)
			if d.logical {
				d.Source = "logical"
			}
		}
	}
	return d.Diagnosis
}

type doctor struct {
	Diagnosis
	cfg      *pgx.ConnConfig
	local    LocalResources
	conn     *pgx.Conn
	srv      Server
	table    *Table
	provider provider
	logical  bool // nothing found yet that forbids it
}

func (d *doctor) add(name string, level Level, found, reason, hint string) {
	d.Findings = append(d.Findings, Finding{Name: name, Level: level, Found: found, Reason: reason, Hint: hint})
}

// problem adds an error as a finding, in a Problem's own words where it is one.
func (d *doctor) problem(name string, level Level, err error) {
	var p *Problem
	if errors.As(err, &p) {
		d.add(name, level, p.Summary, p.Reason, p.Hint)
		return
	}
	d.add(name, level, oneLine(withoutPasswords(err.Error())), "", "")
}

func (d *doctor) connection(ctx context.Context) bool {
	conn, err := Connect(ctx, d.cfg)
	if err != nil {
		d.problem("connection", Fail, err)
		return false
	}
	d.conn = conn
	found := fmt.Sprintf("connected to %s as %s", serverAddress(&d.cfg.Config), d.cfg.User)
	if Pooled(conn) {
		d.add("connection", Warn, found+", through a connection pooler",
			"a pooler such as PgBouncer cannot replicate, and loses notifications where it pools transactions",
			"point --database-url at the server itself")
	} else {
		d.add("connection", OK, found, "", "")
	}
	remote := conn.PgConn().Conn().RemoteAddr()
	tcp, isTCP := remote.(*net.TCPAddr)
	switch secured, ok := conn.PgConn().Conn().(*tls.Conn); {
	case ok:
		d.add("encryption", OK, tls.VersionName(secured.ConnectionState().Version)+" in use", "", "")
	case isTCP && !tcp.IP.IsLoopback():
		d.add("encryption", Warn, "the connection is not encrypted", "votes and password can be read on the way",
			"set sslmode=verify-full and sslrootcert=… in --database-url")
	default:
		d.add("encryption", OK, "none, and none needed: the server is on this machine", "", "")
	}
	return true
}

func (d *doctor) server(ctx context.Context) bool {
	var err error
	if d.srv, err = LoadServer(ctx, d.conn); err == nil {
		d.provider, err = findProvider(ctx, d.conn)
	}
	if err != nil {
		d.problem("server", Fail, err)
		return false
	}
	found := fmt.Sprintf("PostgreSQL %s, database %s in %s", d.srv.Version, d.srv.Database, d.srv.Encoding)
	if d.provider != "" {
		found += ", " + string(d.provider)
	}
	switch {
	case d.srv.VersionNum < MinVersion:
		d.problem("server", Fail, d.srv.checkLogicalReplication())
		return false
	case d.srv.InRecovery:
		d.problem("server", Warn, d.srv.checkLogicalReplication())
		d.logical = false
	case d.srv.Encoding == "SQL_ASCII":
		d.add("server", Warn, found, "it keeps bytes of any encoding; those that are no UTF-8 are replaced in feedback.json", "")
	default:
		d.add("server", OK, found, "", "")
	}
	d.clock(ctx)
	return true
}

// clock compares the clocks, since logs and lag are told by both.
func (d *doctor) clock(ctx context.Context) {
	var there time.Time
	before := time.Now()
	if err := d.conn.QueryRow(ctx, "SELECT pg_catalog.clock_timestamp()").Scan(&there); err != nil {
		d.problem("clock", Warn, Explain(err))
		return
	}
	trip := time.Since(before)
	off := there.Sub(before.Add(trip / 2)).Round(time.Millisecond)
	if off.Abs() > 2*time.Second+trip {
		d.add("clock", Warn, fmt.Sprintf("the server's clock differs by %s", off), "times in logs and the lag will look wrong",
			"let both machines follow NTP")
		return
	}
	d.add("clock", OK, fmt.Sprintf("the server's clock differs by %s, a round trip takes %s", off, trip.Round(10*time.Microsecond)), "", "")
}

func (d *doctor) readTable(ctx context.Context, name Name) bool {
	t, err := loadTableUnchecked(ctx, d.conn, name)
	if err != nil {
		d.problem("table", Fail, err)
		return false
	}
	d.table = t
	d.add("table", OK, fmt.Sprintf("%s, %d columns, key (%s)", t.Name(), len(t.Columns), strings.Join(t.keyNames(), ", ")), "", "")
	if err := t.checkReadable(); err != nil {
		d.problem("privileges", Fail, err)
		return false
	}
	d.add("privileges", OK, fmt.Sprintf("user %s may read all of it", d.srv.User), "", "")
	return true
}

// replication checks what only logical replication needs, but for the publication.
func (d *doctor) replication(ctx context.Context) {
	if err := d.table.checkReplicaIdentity(d.srv.VersionNum); err != nil {
		d.problem("replica identity", Warn, err)
		d.logical = false
	} else {
		d.add("replica identity", OK, "updates and deletes can be published", "", "")
	}
	if d.srv.WALLevel != "logical" {
		d.add("wal_level", Warn, "wal_level is "+d.srv.WALLevel, "logical replication needs it at logical", d.provider.changeSetting("wal_level", "logical", true))
		d.logical = false
	} else {
		d.add("wal_level", OK, "logical", "", "")
	}
	pg, err := ConnectReplication(ctx, d.cfg)
	if err == nil {
		err = Explain(pg.Exec(ctx, "IDENTIFY_SYSTEM").Close())
		_ = pg.Close(context.WithoutCancel(ctx))
	}
	if err == nil {
		d.add("right to replicate", OK, fmt.Sprintf("user %s may open a replication connection", d.srv.User), "", "")
		return
	}
	d.logical = false
	d.problem("right to replicate", Warn, err)
	if last := &d.Findings[len(d.Findings)-1]; last.Hint == replicationGrant {
		last.Hint = d.provider.grantReplication(d.srv.User) + ";"
	}
}

// exportedSnapshots says whether the server has the fix for reads with a new slot's snapshot that come too early. capture
// waits before it reads, whatever the server; other programs may not. Which minor releases besides 15.20 brought the fix is
// not known, except that 13.23, 14.23, 16.14, 17.10 and 18.4 lack it.
func (d *doctor) exportedSnapshots() {
	const name = "exported snapshots"
	if v := d.srv.VersionNum; v >= 190000 || v/10000 == 15 && v >= 150020 {
		d.add(name, OK, "the server waits for commits that are under way before it exports a slot's snapshot", "", "")
		return
	}
	d.add(name, OK, "capture waits for commits that are under way before it reads with a new slot's snapshot",
		fmt.Sprintf("PostgreSQL %s may lack the fix of a bug: a program that reads too early with a new slot's snapshot undoes such a commit. Other programs that copy tables through a slot may do so", d.srv.Version),
		fmt.Sprintf("update to the newest minor release of PostgreSQL %d; 15.20 and 19 have the fix", d.srv.VersionNum/10000))
}

// limits checks what a slot and a sender take from, and what bounds the WAL that they hold back.
func (d *doctor) limits(ctx context.Context) {
	for _, l := range []struct {
		name, setting string
		max, used     int
	}{
		{"replication slots", "max_replication_slots", d.srv.MaxSlots, d.srv.UsedSlots},
		{"WAL senders", "max_wal_senders", d.srv.MaxSenders, d.srv.UsedSenders},
	} {
		found := fmt.Sprintf("%d of %d in use", l.used, l.max)
		if l.used >= l.max {
			d.add(l.name, Warn, found, "capture needs one while it runs", d.provider.changeSetting(l.setting, fmt.Sprint(l.max+5), true))
			d.logical = false
			continue
		}
		d.add(l.name, OK, found, "", "")
	}
	switch keep := d.srv.MaxSlotWALKeepMB; {
	case keep < 0:
		d.add("max_slot_wal_keep_size", OK, "no limit; capture lets its temporary slot go past --max-wal by itself", "", "")
	case keep < 64:
		d.add("max_slot_wal_keep_size", Warn, fmt.Sprintf("%d MB", keep), "a short stall loses the slot, and capture copies the whole table again",
			d.provider.changeSetting("max_slot_wal_keep_size", "1024", false))
	default:
		d.add("max_slot_wal_keep_size", OK, fmt.Sprintf("%d MB", keep), "", "")
	}
	var timeout string
	if err := d.conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('wal_sender_timeout')").Scan(&timeout); err != nil {
		d.problem("wal_sender_timeout", Warn, Explain(err))
	} else if timeout == "0" {
		d.add("wal_sender_timeout", OK, "off; for its own session capture sets a minute, so that a frozen capture holds no WAL back", "", "")
	} else {
		d.add("wal_sender_timeout", OK, timeout, "", "")
	}
	d.add("drop database", OK, "DROP DATABASE fails while capture follows a table in it: stop capture first", "an active slot is in the way, even WITH (FORCE)", "")
}

func (d *doctor) publication(ctx context.Context) {
	own := objectName(d.table.Name())
	pubs, err := findPublications(ctx, d.conn, d.table, own)
	var mayCreate bool
	if err == nil {
		err = d.conn.QueryRow(ctx, "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')").Scan(&mayCreate)
	}
	if err != nil {
		d.problem("publication", Warn, Explain(err))
		d.logical = false
		return
	}
	at, statements := d.table.choosePublication(pubs, own, d.srv.VersionNum)
	hasOwn := len(pubs) > 0 && pubs[0].name == own
	switch {
	case at >= 0:
		d.add("publication", OK, pubs[at].name+" has all changes of the table", "", "")
	case d.table.checkReplicaIdentity(d.srv.VersionNum) != nil:
		d.add("publication", Warn, "none, and none will be made", "the table's replica identity forbids it", "")
		d.logical = false
	case statements != nil && d.table.facts.Owned && (mayCreate || hasOwn):
		d.add("publication", OK, own+" will be made or mended when capture starts", "", strings.Join(statements, ";\n")+";")
	default:
		d.problem("publication", Warn, d.table.noPublicationProblem(&d.srv, pubs, own, nil))
		d.logical = false
	}
}

func (d *doctor) notify(ctx context.Context) {
	err := CheckTriggers(ctx, d.conn, d.table)
	switch {
	case err == nil && Pooled(d.conn):
		d.add("triggers", Warn, "there, but notifications do not come through a pooler", "", "point --database-url at the server itself")
	case err == nil:
		d.add("triggers", OK, "there and enabled", "", "")
		d.Source = "notify"
	case d.logical:
		d.add("triggers", OK, "none, and none needed", "", "")
		return
	default:
		d.problem("triggers", Warn, err)
	}
	var prepared int
	var usage float64
	if err := d.conn.QueryRow(ctx, `SELECT pg_catalog.current_setting('max_prepared_transactions')::int,
		pg_catalog.pg_notification_queue_usage()`).Scan(&prepared, &usage); err != nil {
		d.problem("notifications", Warn, Explain(err))
		return
	}
	switch {
	case usage > NotifyQueueLimit:
		d.add("notifications", Warn, fmt.Sprintf("the server's queue is %.0f %% full", usage*100),
			"somebody listens and does not read; capture reads the whole table until it empties",
			"end the session that holds it up: SELECT * FROM pg_stat_activity WHERE wait_event_type = 'Client' ORDER BY state_change;")
	case err == nil && prepared > 0:
		d.add("notifications", Warn, fmt.Sprintf("max_prepared_transactions is %d", prepared),
			"PREPARE TRANSACTION fails in a transaction that wrote to the table, as in any that notifies",
			"use --source logical where the application prepares transactions, and run capture teardown")
	default:
		d.add("notifications", OK, "the server's queue is free", "", "")
	}
}

// size compares the table with the memory and the disk that its copies take.
func (d *doctor) size(ctx context.Context) {
	var bytes, rows int64
	err := d.conn.QueryRow(ctx, `
		SELECT COALESCE(sum(pg_catalog.pg_table_size(x.oid)), 0)::int8, COALESCE(sum(GREATEST(c.reltuples, 0)), 0)::int8
		FROM (SELECT $1::oid AS oid UNION SELECT relid FROM pg_catalog.pg_partition_tree($1::oid)) x
		JOIN pg_catalog.pg_class c ON c.oid = x.oid WHERE c.relkind = 'r'`, d.table.OID).Scan(&bytes, &rows)
	if err != nil {
		d.problem("size", Warn, Explain(err))
		return
	}
	found := fmt.Sprintf("%s in the database, about %d rows", byteText(bytes), rows)
	// Rows are held as JSON, which is larger than the table where TOAST compresses; two files exist while one is replaced.
	switch need := 2 * bytes; {
	case d.local.Memory > 0 && need > d.local.Memory:
		d.add("size", Warn, found, fmt.Sprintf("capture has %s of memory; rows beyond that lie in a file beside feedback.json, which is slower, where --memory, the container or GOMEMLIMIT sets a limit", byteText(d.local.Memory)),
			fmt.Sprintf("give it %s, or see to it that one of these is set", byteText(need)))
	case d.local.Disk > 0 && 2*need > d.local.Disk:
		d.add("size", Warn, found, fmt.Sprintf("feedback.json exists twice while it is replaced, and %s are free", byteText(d.local.Disk)),
			fmt.Sprintf("make room for %s", byteText(2*need)))
	default:
		d.add("size", OK, found, "", "")
	}
}

func byteText(n int64) string {
	unit, f := "kB", float64(n)/1000
	for _, u := range []string{"MB", "GB", "TB"} {
		if f < 1000 {
			break
		}
		unit, f = u, f/1000
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}
