package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Level is the severity of a [Finding].
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
	Reason string `json:"why,omitempty"`  // why the finding matters
	Hint   string `json:"mend,omitempty"` // SQL or a setting to paste, or an instruction
}

// Diagnosis is the result of [Diagnose].
type Diagnosis struct {
	Findings []Finding `json:"findings"`
	Source   string    `json:"source"` // source that --source auto chooses: "logical", "notify" or "poll"; empty if none works
}

// LocalResources are the resources that capture can use on its machine, in bytes; 0 means unknown.
type LocalResources struct {
	Memory int64 // memory that capture may use
	Disk   int64 // free space on the volume of feedback.json
}

// Diagnose checks everything about the database that capture depends on. It changes nothing: it drops the temporary slot
// that it creates. An unreachable database is a finding, too, not an error.
func Diagnose(ctx context.Context, cfg *pgx.ConnConfig, name Name, local LocalResources) Diagnosis {
	d := doctor{cfg: cfg, local: local, logical: true}
	if d.checkConnection(ctx) {
		defer func() { _ = d.conn.Close(context.WithoutCancel(ctx)) }()
		if d.checkServer(ctx) && d.checkTable(ctx, name) {
			d.Source = "poll"
			d.checkColumns()
			d.checkReplication(ctx)
			d.checkExportedSnapshots()
			d.checkLimits(ctx)
			d.checkPublication(ctx)
			d.checkSlot(ctx)
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
	logical  bool // whether logical replication is possible according to the findings so far
}

func (d *doctor) addFinding(name string, level Level, found, reason, hint string) {
	d.Findings = append(d.Findings, Finding{Name: name, Level: level, Found: found, Reason: reason, Hint: hint})
}

// addError adds an error as a finding. If the error is a [*Problem], the finding has its summary, reason and hint.
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
	found := fmt.Sprintf("connected to %s as %s", answeringAddress(ctx, conn), d.cfg.User)
	if Pooled(conn) {
		d.addFinding("connection", Warn, found+", through a connection pooler",
			"a pooler such as PgBouncer cannot replicate, and loses notifications if it pools transactions",
			"point --database-url at the server itself")
	} else {
		d.addFinding("connection", OK, found, "", "")
	}
	if secured, ok := conn.PgConn().Conn().(*tls.Conn); ok {
		d.checkTLS(tls.VersionName(secured.ConnectionState().Version) + " in use")
	} else {
		networks, _ := net.InterfaceAddrs() // if the networks are unknown, only this machine counts as safe
		d.Findings = append(d.Findings, unencryptedFinding(conn.PgConn().Conn().RemoteAddr(), networks))
	}
	return true
}

// unencryptedFinding returns the finding about a connection without TLS. remote is the server's address, and networks holds the
// networks of this machine. If the server is in one of these networks and the network is private, the finding has the level OK.
// Often, nobody else uses such a network, for example with Docker Compose.
func unencryptedFinding(remote net.Addr, networks []net.Addr) Finding {
	const name, hint = "encryption", "set sslmode=verify-full and sslrootcert=… in --database-url"
	tcp, ok := remote.(*net.TCPAddr)
	isNear := func(a net.Addr) bool {
		network, isNetwork := a.(*net.IPNet)
		return isNetwork && network.Contains(tcp.IP)
	}
	switch {
	case !ok || tcp.IP.IsLoopback():
		return Finding{Name: name, Level: OK, Found: "none, and none needed: the server is on this machine"}
	case tcp.IP.IsPrivate() && slices.ContainsFunc(networks, isNear):
		return Finding{Name: name, Level: OK, Found: "none: the server is in this machine's private network, such as Docker's",
			Reason: "if others use this network, they can read votes and the password", Hint: "if so, " + hint}
	default:
		return Finding{Name: name, Level: Warn, Found: "the connection is not encrypted",
			Reason: "others on the network can read votes and the password", Hint: hint}
	}
}

// checkTLS adds a finding about the verification of the server's certificate. Without verification, an attacker between
// capture and the server can read everything.
func (d *doctor) checkTLS(version string) {
	const name, hint = "encryption", "set sslmode=verify-full and sslrootcert=… in --database-url"
	switch c := d.conn.Config().TLSConfig; {
	case c != nil && !c.InsecureSkipVerify:
		d.addFinding(name, OK, version+", the certificate is verified", "", "")
	case c != nil && c.VerifyPeerCertificate != nil:
		d.addFinding(name, Warn, version+", but any host name in the certificate is accepted",
			"whoever has a certificate of the same authority can pose as the server", hint)
	default:
		d.addFinding(name, Warn, version+", but nobody verified the server's certificate",
			"whoever is between here and the server can read votes and the password", hint)
	}
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
		d.checkStandby(ctx)
	case d.srv.Encoding == "SQL_ASCII":
		d.addFinding("server", Warn, found, "the database stores bytes of any encoding; those that are not UTF-8 are replaced in feedback.json", "")
	default:
		d.addFinding("server", OK, found, "", "")
	}
	if d.srv.Superuser {
		d.addFinding("role", Warn, fmt.Sprintf("user %s is a superuser", d.srv.User),
			"functions of the table's owner, such as casts and those of generated columns, run with all rights when capture reads values",
			"capture setup --role capture, and connect as that role")
	}
	d.checkClock(ctx)
	return true
}

// checkStandby adds a warning if the standby may cancel a read that holds up the replay of WAL. From a standby, capture
// reads with the source "poll".
func (d *doctor) checkStandby(ctx context.Context) {
	var feedback, delay string
	err := Pinned(d.conn).QueryRow(ctx, `SELECT pg_catalog.current_setting('hot_standby_feedback'),
		pg_catalog.current_setting('max_standby_streaming_delay')`).Scan(&feedback, &delay)
	switch found := fmt.Sprintf("hot_standby_feedback is %s, max_standby_streaming_delay is %s", feedback, delay); {
	case err != nil:
		d.addError("standby", Warn, Explain(err))
	case feedback == "off" && delay != "-1":
		d.addFinding("standby", Warn, found, "a read that takes longer than the delay is canceled (SQLSTATE 40001) if the primary vacuums rows that it still needs",
			"on the standby: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf();")
	default:
		d.addFinding("standby", OK, found, "", "")
	}
}

// checkClock compares the clocks of this machine and of the server, because times in logs and the measured lag come from both
// clocks.
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
	return d.checkValues(ctx)
}

// checkValues runs the statements that the sources use to read values, and adds a finding for each error. The statements
// return no rows of the table.
func (d *doctor) checkValues(ctx context.Context) bool {
	t := d.table
	run := func(sql string, types []uint32, params ...[]byte) error {
		tx, err := Begin(ctx, d.conn, "READ ONLY")
		if err != nil {
			return Explain(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		if err := t.Lock(ctx, tx); err != nil {
			return Explain(err)
		}
		_, err = d.conn.PgConn().ExecParams(ctx, sql, params, types, nil, []int16{1}).Close()
		return Explain(err)
	}
	if err := run("SELECT "+t.SelectList()+" FROM "+t.FromClause()+" LIMIT 0", nil); err != nil {
		d.addError("values", Fail, err)
		return false
	}
	d.addFinding("values", OK, "every column can be read", "", "")
	none := make([][]byte, len(t.Key))
	for i := range none {
		none[i] = []byte("{}")
	}
	err := t.KeyProblem()
	if err == nil {
		err = run(t.RowsByKeyQuery()+" LIMIT 0", nil, none...)
	}
	if err != nil { // only a warning, because only the source "notify" reads rows by key
		d.addError("rows by key", Warn, err)
	}
	if query, from, types := t.GeneratedColumnsQuery(); len(from) > 0 {
		if err := run(query, types, make([][]byte, len(from))...); err != nil { // affects only the source "logical", which computes generated columns
			d.addError("generated columns", Warn, err)
			d.logical = false
		}
	}
	return true
}

// checkSize compares the table's size with the memory and the disk space that capture can use.
func (d *doctor) checkSize(ctx context.Context) {
	var bytes, rows int64
	err := Pinned(d.conn).QueryRow(ctx, `
		SELECT COALESCE(sum(pg_catalog.pg_table_size(x.oid)), 0)::int8, COALESCE(sum(GREATEST(c.reltuples, 0)), 0)::int8
		FROM `+TreeSQL("$1")+` x
		JOIN pg_catalog.pg_class c ON c.oid = x.oid WHERE c.relkind = 'r'`, d.table.OID).Scan(&bytes, &rows)
	if err != nil {
		d.addError("size", Warn, Explain(err))
		return
	}
	found := formatBytes(bytes) + " in the database"
	if rows > 0 { // otherwise the table is empty, or nobody has analyzed it yet
		found += fmt.Sprintf(", about %d rows", rows)
	}
	// These factors are estimates. As JSON, the rows are larger than in the table, because Postgres compresses long values.
	// On the disk, the file exists twice while it is replaced.
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
