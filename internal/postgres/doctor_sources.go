package postgres

import (
	"context"
	"fmt"
	"strings"
)

// checkReplication checks what only logical replication needs, except its limits and its publication.
func (d *doctor) checkReplication(ctx context.Context) {
	if err := d.table.checkReplicaIdentity(d.srv.VersionNum); err != nil {
		d.addError("replica identity", Warn, err)
		d.logical = false
	} else {
		d.addFinding("replica identity", OK, "updates and deletes can be published", "", "")
	}
	if d.srv.WALLevel != "logical" {
		d.addFinding("wal_level", Warn, "wal_level is "+d.srv.WALLevel, "logical replication needs wal_level = logical",
			d.provider.changeSetting("wal_level", "logical", true))
		d.logical = false
	} else {
		d.addFinding("wal_level", OK, "logical", "", "")
	}
	pg, err := ConnectReplication(ctx, d.cfg)
	if err == nil {
		err = Explain(pg.Exec(ctx, "IDENTIFY_SYSTEM").Close())
		_ = pg.Close(context.WithoutCancel(ctx))
	}
	if err == nil {
		d.addFinding("right to replicate", OK, fmt.Sprintf("user %s may open a replication connection", d.srv.User), "", "")
		return
	}
	d.logical = false
	d.addError("right to replicate", Warn, err)
	if last := &d.Findings[len(d.Findings)-1]; last.Hint == replicationGrant {
		last.Hint = d.provider.grantReplication(d.srv.User) + ";"
	}
}

// checkExportedSnapshots reports whether the server has the fix for reads with a new slot's snapshot that come too early. capture
// waits before it reads on any server; other programs may not. 15.20 and 19 have the fix; 13.23, 14.23, 16.14, 17.10 and 18.4
// lack it. Whether later minor releases of these have it is not known.
func (d *doctor) checkExportedSnapshots() {
	const name = "exported snapshots"
	if v := d.srv.VersionNum; v >= 190000 || v/10000 == 15 && v >= 150020 {
		d.addFinding(name, OK, "the server waits for commits in progress before it exports a slot's snapshot", "", "")
		return
	}
	d.addFinding(name, OK, "capture waits for commits in progress before it reads with a new slot's snapshot",
		fmt.Sprintf("PostgreSQL %s may lack the fix of a bug: a program that reads too early with a new slot's snapshot undoes such a commit. Other programs that copy tables through a slot may do so", d.srv.Version),
		fmt.Sprintf("update to the newest minor release of PostgreSQL %d; 15.20 and 19 have the fix", d.srv.VersionNum/10000))
}

// checkLimits checks the server's limits on slots and WAL senders, and on the WAL that a slot may retain.
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
	d.addFinding("drop database", OK, "DROP DATABASE fails while capture follows a table in it: stop capture first", "an active slot prevents it, even WITH (FORCE)", "")
}

func (d *doctor) checkPublication(ctx context.Context) {
	own := objectName(d.table.Name())
	publications, err := findPublications(ctx, d.conn, d.table, own)
	var mayCreate bool
	if err == nil {
		err = Pinned(d.conn).QueryRow(ctx, "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')").Scan(&mayCreate)
	}
	if err != nil {
		d.addError("publication", Warn, Explain(err))
		d.logical = false
		return
	}
	chosen, statements := d.table.choosePublication(publications, own, d.srv.VersionNum)
	switch {
	case chosen >= 0:
		d.addFinding("publication", OK, publications[chosen].name+" has all changes of the table", "", "")
	case d.table.checkReplicaIdentity(d.srv.VersionNum) != nil:
		d.addFinding("publication", Warn, "none, and capture will not create one", "the table's replica identity forbids it", "")
		d.logical = false
	case statements != nil && d.table.facts.Owned && (mayCreate || ownPublication(publications, own) != nil):
		d.addFinding("publication", OK, "capture will create or repair "+own+" when it starts", "", strings.Join(statements, ";\n")+";")
	default:
		d.addError("publication", Warn, d.table.noPublicationProblem(&d.srv, publications, own, nil))
		d.logical = false
	}
}

// checkTriggers checks what the source notify needs. It is silent about the server's notification queue if there are no
// triggers and logical replication works.
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
	var prepared int
	var usage float64
	if err := Pinned(d.conn).QueryRow(ctx, `SELECT pg_catalog.current_setting('max_prepared_transactions')::int,
		pg_catalog.pg_notification_queue_usage()`).Scan(&prepared, &usage); err != nil {
		d.addError("notifications", Warn, Explain(err))
		return
	}
	switch {
	case usage > NotifyQueueLimit:
		d.addFinding("notifications", Warn, fmt.Sprintf("the server's queue is %.0f %% full", usage*100),
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
