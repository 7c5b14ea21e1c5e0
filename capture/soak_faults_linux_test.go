package capture

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// fault is something that goes wrong. begin causes the fault. It returns the function that ends the fault, or nil if the fault
// is over at once. Only one fault of a kind happens at a time.
type fault struct {
	kind, name string
	begin      func() (heal func())
	heal       func()
}

// faults returns all faults that a soak chooses from.
func (s *soak) faults() []fault {
	now := func(f func()) func() func() { return func() func() { f(); return nil } }
	until := func(begin, end func()) func() func() { return func() func() { begin(); return end } }
	server := func(stop func()) func() func() {
		return until(stop, func() {
			if err := s.server.StartAgain(context.Background()); err != nil {
				s.t.Errorf("start the server: %v", err)
			}
		})
	}
	return []fault{
		{"none", "nothing", now(func() {}), nil},
		{"process", "killed", now(s.kill), nil},
		{"process", "stopped and started", now(s.restart), nil},
		{"process", "frozen", until(func() { s.signal(syscall.SIGSTOP) }, func() { s.signal(syscall.SIGCONT) }), nil},
		{"network", "cut", now(s.proxy.Cut), nil},
		{"network", "stalled", until(s.proxy.Stall, s.proxy.Unstall), nil},
		{"network", "slow", until(func() { s.proxy.Throttle(20_000+s.r.IntN(200_000), time.Duration(s.r.IntN(200))*time.Millisecond) },
			func() { s.proxy.Throttle(0, 0) }), nil},
		{"network", "refused", until(func() { s.proxy.Refuse(); s.proxy.Cut() }, func() { s.must(s.proxy.Accept()) }), nil},
		{"server", "crashed", server(s.server.Kill), nil},
		{"server", "stopped fast", server(func() { s.must(s.server.Stop("fast")) }), nil},
		{"server", "stopped immediately", server(func() { s.must(s.server.Stop("immediate")) }), nil},
		{"session", "sessions ended", now(func() {
			s.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'capture'")
		}), nil},
		{"session", "slot dropped", now(func() {
			s.ask("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots; SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
		}), nil},
		{"session", "an open transaction", s.hold("CREATE TABLE IF NOT EXISTS other (id int); INSERT INTO other VALUES (1)"), nil},
		{"session", "the table locked", s.hold("LOCK TABLE votes IN ACCESS EXCLUSIVE MODE"), nil},
		{"table", "column added", now(func() {
			s.ask(fmt.Sprintf("SET lock_timeout = '2s'; ALTER TABLE votes ADD COLUMN IF NOT EXISTS more%d text DEFAULT 'more'", s.r.IntN(3)))
		}), nil},
		{"table", "column dropped", now(func() {
			s.ask(fmt.Sprintf("SET lock_timeout = '2s'; ALTER TABLE votes DROP COLUMN IF EXISTS more%d", s.r.IntN(3)))
		}), nil},
		{"table", "truncated", now(func() { s.ask("SET lock_timeout = '2s'; TRUNCATE votes") }), nil},
		{"table", "dropped and created again", now(func() {
			s.ask("BEGIN; SET LOCAL lock_timeout = '2s'; ALTER TABLE votes RENAME TO before; " + votes + `;
				INSERT INTO votes (user_query, bot_response, comment) SELECT user_query, bot_response, comment FROM before; DROP TABLE before; COMMIT`)
		}), nil},
		{"table", "publication dropped", now(func() { s.ask("DROP PUBLICATION IF EXISTS capture_votes") }), nil},
		{"volume", "full or read-only, or gone", func() func() {
			s.spoiled = true
			heal := s.spoilVolume()
			return func() { heal(); s.spoiled = false }
		}, nil},
		{"logs", "the logs' folder is gone", func() func() { return s.replaceFolder(s.logs) }, nil},
	}
}

func (s *soak) must(err error) {
	if err != nil {
		s.t.Error(err)
	}
}

// ask runs statements once. It ignores errors, because the server may be down.
func (s *soak) ask(sql string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.server.URL("postgres"))
	if err == nil {
		_, _ = conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		conn.Close(ctx)
	}
}

// hold returns a function for fault.happen. The fault is an open transaction that runs the given statement and stays open
// until fault.heal ends it.
func (s *soak) hold(sql string) func() func() {
	return func() func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, s.server.URL("postgres"))
		if err != nil {
			return nil
		}
		_, _ = conn.Exec(ctx, "BEGIN; SET LOCAL lock_timeout = '2s'; "+sql, pgx.QueryExecModeSimpleProtocol)
		return func() { conn.Close(context.Background()) }
	}
}

func (s *soak) signal(sig syscall.Signal) { s.must(s.child.cmd.Process.Signal(sig)) }

// mayEnd reports whether the process may be ended. It must have run for some time, and its volume must be intact, so that it
// can start again.
func (s *soak) mayEnd() bool { return !s.spoiled && time.Now().After(s.dies) }

// kill ends the process with SIGKILL and starts it again.
func (s *soak) kill() {
	if !s.mayEnd() {
		return
	}
	s.child.kill()
	s.start()
}

// restart stops the process cleanly and starts it again.
func (s *soak) restart() {
	if !s.mayEnd() {
		return
	}
	if code := s.child.stop(); code != 0 {
		s.t.Errorf("exit code %d", code)
	}
	s.start()
}

// spoilVolume fills the file's small volume or makes it read-only. Without a small volume it moves the folder away.
func (s *soak) spoilVolume() (heal func()) {
	c := s.child
	switch {
	case !s.small:
		return s.replaceFolder(s.folder)
	case s.r.IntN(2) == 0:
		c.remount("ro")
		return func() { _, _ = fmt.Fprintln(c.stdin, "rw") }
	}
	filler := s.path("filler")
	if f, err := os.Create(filler); err == nil {
		block := make([]byte, 1<<20)
		for n := 0; n < 64 && err == nil; n++ { // 64 MB is the size of the volume
			_, err = f.Write(block)
		}
		f.Close()
	}
	return func() { _ = os.Remove(filler) } // Remove fails if the volume is already gone
}

// replaceFolder moves a folder to another path and puts a file in its place. heal undoes both.
func (s *soak) replaceFolder(folder string) (heal func()) {
	aside := folder + ".aside"
	s.must(os.Rename(folder, aside))
	s.must(os.WriteFile(folder, nil, 0o644))
	return func() {
		s.must(os.Remove(folder))
		s.must(os.Rename(aside, folder))
	}
}
