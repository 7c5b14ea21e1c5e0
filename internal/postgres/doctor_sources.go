package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
)

// checkReplication checks the requirements of logical replication, except its limits and its publication.
func (d *doctor) checkReplication(ctx context.Context) {
	if err := d.table.checkReplicaIdentity(d.srv.VersionNum); err != nil {
		d.addError("replica identity", Warn, err)
		d.logical = false
	} else {
		d.addFinding("replica identity", OK, "updates and deletes can be published", "", "")
	}
	d.checkWALLevel(ctx)
	pg, err := ConnectReplication(ctx, d.cfg)
	if err == nil {
		err = Explain(pg.Exec(ctx, "IDENTIFY_SYSTEM").Close())
		_ = pg.Close(context.WithoutCancel(ctx))
	}
	if err == nil {
		d.addFinding("right to replicate", OK, fmt.Sprintf("user %s may open a replication connection", d.srv.User), "", "")
		d.checkPhysicalReplication(ctx)
		return
	}
	d.logical = false
	d.addError("right to replicate", Warn, err)
	if last := &d.Findings[len(d.Findings)-1]; last.Hint == replicationGrant {
		last.Hint = d.provider.grantReplication(d.srv.User) + ";"
	}
}

// checkWALLevel checks that logical decoding is possible. If the server enables logical decoding only while a logical slot
// exists, checkWALLevel also checks that no standby is connected, because the end of capture's slot can invalidate logical
// slots on a standby.
func (d *doctor) checkWALLevel(ctx context.Context) {
	const name = "wal_level"
	if d.srv.InRecovery { // for a standby, the finding "server" has the reason already
		return
	}
	raise := d.provider.changeSetting(name, "logical", true)
	var problem *Problem
	if err := d.srv.checkLogicalReplication(); errors.As(err, &problem) {
		d.addFinding(name, Warn, problem.Summary, problem.Reason, raise)
		d.logical = false
		return
	}
	if !d.srv.decodesOnDemand() {
		d.addFinding(name, OK, d.srv.WALLevel, "", "")
		return
	}
	switch err := d.srv.CheckStandbys(ctx, d.conn); {
	case err == nil:
		d.addFinding(name, OK, "replica: logical decoding is enabled while a logical slot exists",
			"when the last logical slot goes, logical slots on standbys become invalid; if a standby connects, --source auto does not use logical",
			"if you have standbys with logical slots: "+raise)
	case errors.As(err, &problem) && problem.Err == nil:
		d.addFinding(name, Warn, problem.Summary, problem.Reason, raise+"\nor accept that with --source logical")
		d.logical = false
	default:
		d.addError(name, Warn, err)
	}
}

// checkPhysicalReplication warns if the user may copy the whole cluster. The role attribute REPLICATION allows that. Only
// pg_hba.conf can restrict the user to logical replication of one database.
func (d *doctor) checkPhysicalReplication(ctx context.Context) {
	c := d.cfg.Config.Copy()
	c.RuntimeParams["replication"] = "true"
	pg, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return // the server refuses physical replication, as it should
	}
	_ = pg.Close(context.WithoutCancel(ctx))
	_, encrypted := d.conn.PgConn().Conn().(*tls.Conn) // if the connection uses TLS, the hint suggests hostssl instead of host
	d.addFinding("physical replication", Warn, fmt.Sprintf("user %s may also copy the whole cluster", d.srv.User),
		"whoever has the password can run pg_basebackup, which includes all databases and the password hashes",
		"put these lines first in pg_hba.conf and run SELECT pg_reload_conf();\n"+HBALines(d.srv.Database, d.srv.User, encrypted))
}

// HBALines returns lines for pg_hba.conf that let a role connect to one database and replicate from it, and reject
// everything else. Physical replication needs its own line, because "all" as the database does not match it. If encrypted is
// true, the lines admit only connections with TLS.
func HBALines(database, role string, encrypted bool) string {
	kind := "host"
	if encrypted {
		kind = "hostssl"
	}
	name := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	return fmt.Sprintf("%[3]s %[1]s %[2]s <address>/32 scram-sha-256\nhost all %[2]s all reject\nhost replication %[2]s all reject",
		name(database), name(role), kind)
}

// slotTimeout bounds how long doctor waits for a slot. The server creates a slot only after all open write transactions have
// ended.
const slotTimeout = 3 * time.Second

// checkSlot creates a temporary slot, as capture run does, and drops it. It also warns about prepared transactions, because
// a new slot waits for them.
func (d *doctor) checkSlot(ctx context.Context) {
	open, err := LoadOpenTransactions(ctx, d.conn)
	if err != nil {
		d.addError("open transactions", Warn, Explain(err))
	} else if len(open.Prepared) > 0 {
		d.addFinding("prepared transactions", Warn, strings.Join(open.Prepared, ", "), "a new replication slot waits until they end, and vacuum cannot remove rows meanwhile",
			"end each one that nobody will commit with its ROLLBACK PREPARED, in its database")
	}
	if !d.logical {
		return
	}
	const name = "replication slot"
	pg, err := ConnectReplication(ctx, d.cfg)
	if err != nil {
		d.addError(name, Warn, err)
		d.logical = false
		return
	}
	defer CloseNow(pg)
	waiting, cancel := context.WithTimeout(ctx, slotTimeout)
	defer cancel()
	slot := fmt.Sprintf("capture_doctor_%d", pg.PID())
	err = pg.Exec(waiting, "CREATE_REPLICATION_SLOT "+slot+" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT").Close()
	// Drop the slot, because a temporary slot can exist for a moment after its connection has ended.
	if err == nil {
		err = pg.Exec(waiting, "DROP_REPLICATION_SLOT "+slot).Close()
	}
	switch {
	case err == nil:
		d.addFinding(name, OK, "a temporary slot can be created", "", "")
	case waiting.Err() != nil && ctx.Err() == nil:
		reason := "the server is slow, or a write transaction has begun meanwhile and is open"
		if list := open.String(); list != "" {
			reason = "it waits for write transactions: " + list
		}
		d.addFinding(name, Warn, fmt.Sprintf("the server did not create one within %s", slotTimeout),
			reason+"; capture reads the table from time to time meanwhile", "")
	default:
		d.addError(name, Warn, Explain(err))
		d.addPluginHint(ctx, &d.Findings[len(d.Findings)-1])
		d.logical = false
	}
}

// addPluginHint completes the hint of a finding if the server's list of allowed output plugins lacks pgoutput. Minor releases
// since August 2026 have such a list.
func (d *doctor) addPluginHint(ctx context.Context, f *Finding) {
	var allowed *string
	err := Pinned(d.conn).QueryRow(ctx, "SELECT pg_catalog.current_setting('output_plugin_libraries', true)").Scan(&allowed)
	if err != nil || allowed == nil {
		return // the finding keeps its general hint
	}
	list := []string{}
	for _, library := range strings.Split(*allowed, ",") {
		switch library = strings.Trim(strings.TrimSpace(library), `"`); library {
		case "pgoutput":
			return // pgoutput is allowed, so something else is wrong
		case "":
		default:
			list = append(list, library)
		}
	}
	f.Hint = d.provider.changeSetting("output_plugin_libraries", strings.Join(append(list, "pgoutput"), "', '"), false)
}

// checkExportedSnapshots adds a finding on whether the server has the fix for a bug. If a program reads a row with a new
// slot's snapshot while the row's transaction is still committing, the read can mark the transaction as aborted in the row.
// The commit is then lost for everybody (see awaitCommits in package logical). capture waits for such commits on every
// server, but other programs might not. Versions 15.20 and 19 have the fix. Versions 13.23, 14.23, 16.14, 17.10 and 18.4
// lack it. We do not know whether later minor releases have it.
func (d *doctor) checkExportedSnapshots() {
	const name = "exported snapshots"
	if v := d.srv.VersionNum; v >= 190000 || v/10000 == 15 && v >= 150020 {
		d.addFinding(name, OK, "the server waits for commits in progress before it exports a slot's snapshot", "", "")
		return
	}
	d.addFinding(name, OK, "capture reads with a new slot's snapshot only after the commits in progress have ended, which is safe on every server",
		fmt.Sprintf("only for other programs that copy tables through a slot: PostgreSQL %s may lack a fix without which they can undo such a commit", d.srv.Version),
		fmt.Sprintf("if you run such programs, update to the newest minor release of PostgreSQL %d; 15.20 and 19 have the fix", d.srv.VersionNum/10000))
}

// checkLimits checks the server's limits on slots, WAL senders and retained WAL, and its wal_sender_timeout. It also adds two
// notes. The first note lists the statements that Postgres refuses while capture is connected. The second note lists the
// statements that Postgres refuses while the table is in a publication.
func (d *doctor) checkLimits(ctx context.Context) {
	for _, l := range []struct {
		name, setting string
		max, used     int
	}{
		{"replication slots", "max_replication_slots", d.srv.MaxSlots, d.srv.UsedSlots},
		{"WAL senders", "max_wal_senders", d.srv.MaxSenders, d.srv.UsedSenders},
	} {
		found := fmt.Sprintf("%d of %d in use", l.used, l.max)
		if l.used >= l.max {
			d.addFinding(l.name, Warn, found, "capture needs one while it runs", d.provider.changeSetting(l.setting, fmt.Sprint(l.max+5), true))
			d.logical = false
			continue
		}
		d.addFinding(l.name, OK, found, "", "")
	}
	switch keep := d.srv.MaxSlotWALKeepMB; {
	case keep < 0:
		d.addFinding("max_slot_wal_keep_size", OK, "no limit; capture itself drops its temporary slot when it retains more than --max-wal", "", "")
	case keep < 64:
		d.addFinding("max_slot_wal_keep_size", Warn, fmt.Sprintf("%d MB", keep), "a short stall loses the slot, and capture copies the whole table again",
			d.provider.changeSetting("max_slot_wal_keep_size", "1024", false))
	default:
		d.addFinding("max_slot_wal_keep_size", OK, fmt.Sprintf("%d MB", keep), "", "")
	}
	var timeout string
	if err := Pinned(d.conn).QueryRow(ctx, "SELECT pg_catalog.current_setting('wal_sender_timeout')").Scan(&timeout); err != nil {
		d.addError("wal_sender_timeout", Warn, Explain(err))
	} else if timeout == "0" {
		d.addFinding("wal_sender_timeout", OK, "off; capture sets a minute for its own session, so that its slot retains no WAL if capture is frozen", "", "")
	} else {
		d.addFinding("wal_sender_timeout", OK, timeout, "", "")
	}
	d.addFinding("drop database", OK, "nothing to do now; stop capture before a DROP DATABASE, ALTER DATABASE … RENAME or CREATE DATABASE … TEMPLATE",
		"Postgres refuses them while a session such as capture's is connected, and DROP DATABASE WITH (FORCE) while a slot is active", "")
	d.addFinding("migrations", OK, "ordinary migrations work; run capture teardown before one that sets the table UNLOGGED or drops its key",
		"while a publication has the table, Postgres refuses SET UNLOGGED, and UPDATE and DELETE without a key", "")
}

func (d *doctor) checkPublication(ctx context.Context) {
	own := objectName(d.table.Name())
	publications, err := findPublications(ctx, d.conn, d.table, own)
	if err != nil {
		d.addError("publication", Warn, Explain(err))
		d.logical = false
		return
	}
	chosen, statements := d.table.choosePublication(publications, own, d.srv.VersionNum)
	switch {
	case chosen >= 0 && publications[chosen].name == own && !publications[chosen].alterable:
		d.addFinding("publication", Warn, fmt.Sprintf("%s has all changes of the table, but belongs to %s", own, publications[chosen].owner),
			fmt.Sprintf("if the table loses its key, the application's UPDATE and DELETE fail until somebody drops the publication; user %s cannot", d.srv.User),
			d.takeOverHint(&publications[chosen]))
	case chosen >= 0:
		d.addFinding("publication", OK, publications[chosen].name+" has all changes of the table", "", "")
	case d.table.checkReplicaIdentity(d.srv.VersionNum) != nil:
		d.addFinding("publication", Warn, "none, and capture will not create one", "the table's replica identity forbids it", "")
		d.logical = false
	case statements != nil:
		when := "when it starts"
		if !d.logical {
			when = "once it follows by logical"
		}
		d.addFinding("publication", OK, "capture will create or repair "+own+" "+when, "", strings.Join(statements, ";\n")+";")
	default:
		d.addError("publication", Warn, d.table.noPublicationProblem(&d.srv, publications, own, nil))
		d.logical = false
	}
}

// takeOverHint returns the statements that make the user the owner of publication p, each with a comment that names the role
// that may run it. Unless p's owner is a superuser, Postgres requires that this owner is a member of the user's role, and that
// the user has CREATE on the database.
func (d *doctor) takeOverHint(p *publication) string {
	if p.superuser {
		return fmt.Sprintf("capture setup --role %s, as %s or another superuser", foreign.ShellWord(d.srv.User), displayIdentifier(p.owner))
	}
	var before, after []string
	grant := func(right, role, grantor string) {
		before = append(before, fmt.Sprintf("GRANT %s TO %s; -- as %s", right, QuoteIdentifier(role), grantor))
		after = append(after, fmt.Sprintf("REVOKE %s FROM %s; -- as %s", right, QuoteIdentifier(role), grantor))
	}
	if !p.member {
		grant(QuoteIdentifier(d.srv.User), p.owner, "an administrator")
	}
	if facts := &d.table.facts; !facts.Creates {
		grant("CREATE ON DATABASE "+QuoteIdentifier(d.srv.Database), d.srv.User, displayIdentifier(facts.DatabaseOwner)+", who owns the database")
	}
	change := fmt.Sprintf("ALTER PUBLICATION %s OWNER TO %s; -- as %s, who owns the publication", QuoteIdentifier(p.name), QuoteIdentifier(d.srv.User), displayIdentifier(p.owner))
	if len(before) > 0 {
		change += ", or as a superuser, who needs no other statement"
	}
	return strings.Join(slices.Concat(before, []string{change}, after), "\n")
}

// checkTriggers checks the requirements of the source "notify". If the triggers do not work but logical replication does,
// capture needs no notifications, so checkTriggers does not check the server's notification queue.
func (d *doctor) checkTriggers(ctx context.Context) {
	err := CheckTriggers(ctx, d.conn, d.table)
	switch {
	case err == nil && Pooled(d.conn):
		d.addFinding("triggers", Warn, "present, but notifications do not come through a pooler", "", "point --database-url at the server itself")
	case err == nil:
		d.addFinding("triggers", OK, "present and enabled", "", "")
		d.Source = "notify"
	case d.logical:
		d.addFinding("triggers", OK, "none, and none needed", "", "")
		return
	default:
		d.addError("triggers", Warn, err)
	}
	queue, queueErr := LoadNotificationQueue(ctx, d.conn)
	if queueErr != nil {
		d.addError("notifications", Warn, Explain(queueErr))
		return
	}
	var prepared int
	if err := Pinned(d.conn).QueryRow(ctx, "SELECT pg_catalog.current_setting('max_prepared_transactions')::int").Scan(&prepared); err != nil {
		d.addError("notifications", Warn, Explain(err))
		return
	}
	switch {
	case queue.Hidden:
		d.addFinding("notifications", Warn, "PUBLIC lacks EXECUTE on pg_notification_queue_usage() or float8le(float8, float8)",
			"the triggers call both before they send, and send nothing for a role that may not execute them; so capture reads the whole table every 10 seconds",
			"GRANT EXECUTE ON FUNCTION pg_catalog.pg_notification_queue_usage(), pg_catalog.float8le(float8, float8) TO PUBLIC;")
	case queue.LosesNotifications():
		d.addFinding("notifications", Warn, fmt.Sprintf("the server's queue is %.0f %% full", queue.Usage*100),
			"some session listens and does not read; capture reads the whole table until the queue empties",
			"end that session: SELECT * FROM pg_stat_activity WHERE wait_event_type = 'Client' ORDER BY state_change;")
	case err == nil && prepared > 0:
		d.addFinding("notifications", Warn, fmt.Sprintf("max_prepared_transactions is %d", prepared),
			"PREPARE TRANSACTION fails in a transaction that wrote to the table, because the triggers notify",
			"if the application prepares transactions, use --source logical and run capture teardown")
	default:
		d.addFinding("notifications", OK, "the server's queue has room", "", "")
	}
}
