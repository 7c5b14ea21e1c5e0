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

// Level is how serious a [Finding] is.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn" // capture works, but not as well as it could
	Fail Level = "fail" // capture does not work until this is solved
)

// Finding is the result of one check of [Diagnose]. Scripts rely on the JSON names.
type Finding struct {
	Name   string `json:"name"` // the check's name, one to three words
	Level  Level  `json:"level"`
	Found  string `json:"found"`
	Reason string `json:"why,omitempty"`  // why it matters
	Hint   string `json:"mend,omitempty"` // SQL or a setting to paste, or what to do
}

// Diagnosis is the result of [Diagnose].
type Diagnosis struct {
	Findings []Finding `json:"findings"`
	Source   string    `json:"source"` // the source that --source auto takes: "logical", "notify" or "poll"; empty if none works
}

// LocalResources are what the machine that runs capture has to spare, in bytes; 0 means unknown.
type LocalResources struct {
	Memory int64 // memory that capture may use
	Disk   int64 // free space on the volume of feedback.json
}

// Diagnose checks everything about the database that capture depends on. It changes nothing. A database that it cannot reach
// is a finding, too.
func Diagnose(ctx context.Context, cfg *pgx.ConnConfig, name Name, local LocalResources) Diagnosis {
	d := doctor{cfg: cfg, local: local, logical: true}
	if d.checkConnection(ctx) {
		defer func() { _ = d.conn.Close(context.WithoutCancel(ctx)) }()
		if d.checkServer(ctx) && d.checkTable(ctx, name) {
			d.Source = "poll"
			d.checkReplication(ctx)
			d.checkExportedSnapshots()
			d.checkLimits(ctx)
			d.checkPublication(ctx)
			d.checkTriggers(ctx)
			d.checkSize(ctx)
			if d.logical {
				d.Source = "logical"
			}
		}
	}
	return d.Diagnosis
}

// doctor is one run of [Diagnose].
type doctor struct {
	Diagnosis
	cfg      *pgx.ConnConfig
	local    LocalResources
	conn     *pgx.Conn
	srv      Server
	table    *Table
	provider provider
	logical  bool // no finding so far rules logical replication out
}

func (d *doctor) addFinding(name string, level Level, found, reason, hint string) {
	d.Findings = append(d.Findings, Finding{Name: name, Level: level, Found: found, Reason: reason, Hint: hint})
}

// addError adds an error as a finding: in the words of its Problem, if it is one.
func (d *doctor) addError(name string, level Level, err error) {
	var p *Problem
	if errors.As(err, &p) {
		d.addFinding(name, level, p.Summary, p.Reason, p.Hint)
		return
	}
	d.addFinding(name, level, oneLine(withoutPasswords(err.Error())), "", "")
}

func (d *doctor) checkConnection(ctx context.Context) bool {
	conn, err := Connect(ctx, d.cfg)
	if err != nil {
		d.addError("connection", Fail, err)
		return false
	}
	d.conn = conn
	found := fmt.Sprintf("connected to %s as %s", serverAddress(&d.cfg.Config), d.cfg.User)
	if Pooled(conn) {
		d.addFinding("connection", Warn, found+", through a connection pooler",
			"a pooler such as PgBouncer cannot replicate, and loses notifications if it pools transactions",
			"point --database-url at the server itself")
	} else {
		d.addFinding("connection", OK, found, "", "")
	}
	tcp, isTCP := conn.PgConn().Conn().RemoteAddr().(*net.TCPAddr)
	switch secured, ok := conn.PgConn().Conn().(*tls.Conn); {
	case ok:
		d.addFinding("encryption", OK, tls.VersionName(secured.ConnectionState().Version)+" in use", "", "")
	case isTCP && !tcp.IP.IsLoopback():
		d.addFinding("encryption", Warn, "the connection is not encrypted", "others on the network can read votes and the password",
			"set sslmode=verify-full and sslrootcert=… in --database-url")
	default:
		d.addFinding("encryption", OK, "none, and none needed: the server is on this machine", "", "")
	}
	return true
}

func (d *doctor) checkServer(ctx context.Context) bool {
	var err error
	if d.srv, err = LoadServer(ctx, d.conn); err == nil {
		d.provider, err = findProvider(ctx, d.conn)
	}
	if err != nil {
		d.addError("server", Fail, err)
		return false
	}
	found := fmt.Sprintf("PostgreSQL %s, database %s in %s", d.srv.Version, d.srv.Database, d.srv.Encoding)
	if d.provider != "" {
		found += ", " + string(d.provider)
	}
	switch {
	case d.srv.VersionNum < MinVersion:
		d.addError("server", Fail, d.srv.checkLogicalReplication())
		return false
	case d.srv.InRecovery:
		d.addError("server", Warn, d.srv.checkLogicalReplication())
		d.logical = false
	case d.srv.Encoding == "SQL_ASCII":
		d.addFinding("server", Warn, found, "the database stores bytes of any encoding; those that are not UTF-8 are replaced in feedback.json", "")
	default:
		d.addFinding("server", OK, found, "", "")
	}
	d.checkClock(ctx)
	return true
}

// checkClock compares the two machines' clocks: times in logs and the lag come from both.
func (d *doctor) checkClock(ctx context.Context) {
	var serverTime time.Time
	before := time.Now()
	if err := Pinned(d.conn).QueryRow(ctx, "SELECT pg_catalog.clock_timestamp()").Scan(&serverTime); err != nil {
		d.addError("clock", Warn, Explain(err))
		return
	}
	roundTrip := time.Since(before)
	difference := serverTime.Sub(before.Add(roundTrip / 2)).Round(time.Millisecond)
	if difference.Abs() > 2*time.Second+roundTrip {
		d.addFinding("clock", Warn, fmt.Sprintf("the server's clock differs by %s", difference), "times in logs and the lag look wrong",
			"synchronize both machines by NTP")
		return
	}
	d.addFinding("clock", OK, fmt.Sprintf("the server's clock differs by %s, a round trip takes %s", difference, roundTrip.Round(10*time.Microsecond)), "", "")
}

func (d *doctor) checkTable(ctx context.Context, name Name) bool {
	t, err := loadTableUnchecked(ctx, d.conn, name)
	if err != nil {
		d.addError("table", Fail, err)
		return false
	}
	d.table = t
	d.addFinding("table", OK, fmt.Sprintf("%s, %d columns, key (%s)", t.Name(), len(t.Columns), strings.Join(t.keyNames(), ", ")), "", "")
	if err := t.checkReadable(); err != nil {
		d.addError("privileges", Fail, err)
		return false
	}
	d.addFinding("privileges", OK, fmt.Sprintf("user %s may read the whole table", d.srv.User), "", "")
	return true
}

// checkSize compares the table with the memory and the disk that its copies take.
func (d *doctor) checkSize(ctx context.Context) {
	var bytes, rows int64
	err := Pinned(d.conn).QueryRow(ctx, `
		SELECT COALESCE(sum(pg_catalog.pg_table_size(x.oid)), 0)::int8, COALESCE(sum(GREATEST(c.reltuples, 0)), 0)::int8
		FROM (SELECT $1::oid AS oid UNION SELECT relid FROM pg_catalog.pg_partition_tree($1::oid)) x
		JOIN pg_catalog.pg_class c ON c.oid = x.oid WHERE c.relkind = 'r'`, d.table.OID).Scan(&bytes, &rows)
	if err != nil {
		d.addError("size", Warn, Explain(err))
		return
	}
	found := fmt.Sprintf("%s in the database, about %d rows", formatBytes(bytes), rows)
	// As JSON the rows take more than the table, whose long values are compressed. The file exists twice while it is replaced.
	memory := 2 * bytes
	disk := 2 * memory
	switch {
	case d.local.Memory > 0 && memory > d.local.Memory:
		d.addFinding("size", Warn, found,
			fmt.Sprintf("capture has %s of memory. If --memory, the container or GOMEMLIMIT sets a limit, rows beyond it go to a slower file beside feedback.json", formatBytes(d.local.Memory)),
			fmt.Sprintf("give it %s, or set one of these limits", formatBytes(memory)))
	case d.local.Disk > 0 && disk > d.local.Disk:
		d.addFinding("size", Warn, found, fmt.Sprintf("feedback.json exists twice while it is replaced, and %s are free", formatBytes(d.local.Disk)),
			fmt.Sprintf("free %s", formatBytes(disk)))
	default:
		d.addFinding("size", OK, found, "", "")
	}
}

func formatBytes(n int64) string {
	unit, f := "kB", float64(n)/1000
	for _, u := range []string{"MB", "GB", "TB"} {
		if f < 1000 {
			break
		}
		unit, f = u, f/1000
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}
