package logical

import (
	"cmp"
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"capture/capture/sourcetest"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// BenchmarkStream measures how fast capture applies changes that already wait in its slot. For comparison, pg_recvlogical
// reads the same changes and discards them: with the output plugin pgoutput, as capture does, and with wal2json and
// decoderbufs if the server has them. Programs that use other libraries (followers) also read the changes, if these programs
// can be installed. CAPTURE_BENCH_ROWS sets the number of votes.
func BenchmarkStream(b *testing.B) {
	rows, err := strconv.Atoi(cmp.Or(os.Getenv("CAPTURE_BENCH_ROWS"), "100000"))
	if err != nil {
		b.Fatalf("CAPTURE_BENCH_ROWS: %v", err)
	}
	for _, c := range []struct {
		name         string
		perTx, words int
		peers        []string
	}{
		{"long/tx=single", 1, 60, nil}, {"long/tx=hundreds", 100, 60, []string{"wal2json", "decoderbufs", "node", "go-pq-cdc", "pgstream", "conduit"}}, {"long/tx=whole", rows, 60, nil},
		{"short/tx=single", 1, 8, nil}, {"short/tx=hundreds", 100, 8, nil},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkStream(b, rows, c.perTx, c.words, c.peers) })
	}
}

// fillProcedure creates a procedure that inserts votes. A vote has 3 kB if its answer has 60 words, and 1 kB if its answer
// has 8 words. The procedure computes only 50 different answers, because computing an answer takes longer than writing it.
const fillProcedure = `CREATE PROCEDURE fill(transactions int, votes int, words int) LANGUAGE plpgsql AS $$
	DECLARE
		answers text[] := (SELECT array_agg((SELECT string_agg(md5((i * 100 + j)::text), ' ') FROM generate_series(1, words) j)) FROM generate_series(1, 50) i);
		sources jsonb := (SELECT jsonb_agg(jsonb_build_object('title', md5(j::text), 'url', 'https://example.com/' || j, 'score', j)) FROM generate_series(1, 5) j);
	BEGIN
		FOR n IN 1..transactions LOOP
			INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags, citations)
				SELECT 'How do I ' || n || '?', answers[1 + mod(n + i, 50)], '{"relevance": 4, "groundedness": 0.5}', '{Looks Good / Accurate & Clear}', sources
				FROM generate_series(1, votes) i;
			COMMIT;
		END LOOP;
	END $$`

func benchmarkStream(b *testing.B, rows, perTx, words int, peers []string) {
	url := pgserver.Database(b)
	conn := sourcetest.Connect(b, url)
	conn.MustExec(sourcetest.Votes)
	conn.MustExec(fillProcedure)
	others := followers(b, peers)
	took := make(map[string]time.Duration)
	var allocs uint64
	for b.Loop() {
		conn.MustExec("TRUNCATE votes")
		env := newEnv(b, url)
		env.Timeouts.FrozenClient = time.Hour // the slot's connection must not end while it is idle during the INSERTs
		t := snapshot.NewTable()
		s := New(env)
		encoder := copyBeforeStream(b, s, t)
		slots := bareSlots(b, conn, peers)
		conn.MustExec("CALL fill($1, $2, $3)", rows/perTx, perTx, words)
		var target pglogrepl.LSN
		if err := s.queries.Do(b.Context(), func(ctx context.Context, c *pgx.Conn) (err error) {
			target, err = postgres.LoadInsertLSN(ctx, c)
			return err
		}); err != nil {
			b.Fatal(err)
		}
		span, mallocs := drain(b, s, t, encoder, target)
		took["capture"] += span
		allocs += mallocs
		if n := t.View().Rows(); n != rows {
			b.Fatalf("%d rows came of %d", n, rows)
		}
		for peer, slot := range slots {
			if f, ok := others[peer]; ok {
				took[peer] += f.drain(b, url, slot, s.publication.name, target, rows)
			} else if foreign[peer] == "" {
				took[peer] += recvlogical(b, url, peer, slot, s.publication.name, target)
			}
			dropSlot(b, conn, slot)
		}
	}
	drained := float64(rows * b.N)
	for name, t := range took {
		if t > 0 {
			b.ReportMetric(drained/t.Seconds(), name+"-rows/s")
		}
	}
	b.ReportMetric(float64(allocs)/drained, "allocs/row")
	b.ReportMetric(float64(allocs)/drained*float64(perTx), "allocs/tx")
	if bare := took["pgoutput"]; bare > 0 {
		b.ReportMetric(bare.Seconds()/took["capture"].Seconds(), "×pg_recvlogical")
	}
}

// drain returns the time that capture takes to apply the stream up to target, and the number of memory allocations.
func drain(b *testing.B, s *Source, t *snapshot.Table, encoder *rowjson.Encoder, target pglogrepl.LSN) (time.Duration, uint64) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	go func() { done <- s.stream(ctx, t, encoder) }()
	for s.standby.appliedLSN() < target {
		select {
		case err := <-done:
			b.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	cancel()
	<-done
	s.standby.close()
	s.queries.Close()
	return took, after.Mallocs - before.Mallocs
}

// foreign maps each peer that is a program to the output plugin that this program uses. Every other peer is itself an output
// plugin, and pg_recvlogical reads from its slot.
var foreign = map[string]string{"node": "pgoutput", "go-pq-cdc": "pgoutput", "pgstream": "wal2json", "conduit": "pgoutput"}

// bareSlots creates a slot with pgoutput for pg_recvlogical, and a slot for each peer whose output plugin the server has. It
// returns the slots' names by peer.
func bareSlots(b *testing.B, conn *sourcetest.Conn, others []string) map[string]string {
	b.Helper()
	slots := make(map[string]string)
	for _, peer := range append([]string{"pgoutput"}, others...) {
		slot, plugin := fmt.Sprint(strings.ReplaceAll(peer, "-", "_"), "_", conn.PgConn().PID()), cmp.Or(foreign[peer], peer)
		if _, err := conn.Exec(b.Context(), "SELECT pg_create_logical_replication_slot($1, $2)", slot, plugin); err == nil {
			slots[peer] = slot
		} else if plugin == "pgoutput" {
			b.Fatal(err)
		} else {
			b.Logf("%s is left out: %v", peer, err)
		}
	}
	return slots
}

// dropSlot drops a slot as soon as the server has noticed that the slot's reader is gone.
func dropSlot(b *testing.B, conn *sourcetest.Conn, slot string) {
	b.Helper()
	for range 1000 {
		done, err := conn.Exec(b.Context(), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active", slot)
		if err != nil {
			b.Fatal(err)
		}
		if done.RowsAffected() == 1 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatalf("the slot %s is still in use", slot)
}

// recvlogical returns the time that pg_recvlogical takes to drain a slot, or 0 if pg_recvlogical is not installed.
func recvlogical(b *testing.B, url, plugin, slot, publication string, target pglogrepl.LSN) time.Duration {
	b.Helper()
	bin, err := pgserver.Bin()
	if err != nil {
		b.Fatal(err)
	}
	program := filepath.Join(bin, "pg_recvlogical")
	if _, err := os.Stat(program); err != nil {
		return 0
	}
	args := []string{"-d", url, "--slot", slot, "--start", "--no-loop", "-f", os.DevNull, "--endpos", target.String()}
	switch plugin {
	case "pgoutput":
		args = append(args, "-o", "proto_version=1", "-o", "publication_names="+publication)
	case "wal2json":
		args = append(args, "-o", "format-version=2") // format 2 has one line per row; format 1 fails if a transaction has 1 GB
	}
	start := time.Now()
	if out, err := osexec.CommandContext(b.Context(), program, args...).CombinedOutput(); err != nil {
		b.Fatalf("pg_recvlogical (%s): %v: %s", plugin, err, out)
	}
	return time.Since(start)
}

// follower is a program that drains a slot. Its arguments are the database's URL, the slot, the publication, the position to stop
// at and the number of rows. It prints how many rows it saw.
type follower struct {
	name    string
	command []string
}

// followers returns the foreign peers that can be installed, by name.
func followers(b *testing.B, peers []string) map[string]*follower {
	b.Helper()
	found := make(map[string]*follower)
	for _, name := range peers {
		if foreign[name] == "" {
			continue
		}
		get := buildGo
		if name == "node" {
			get = installNode
		}
		command, err := get(b, name)
		if err != nil {
			b.Logf("%s is left out: %v", name, err)
			continue
		}
		found[name] = &follower{name, command}
	}
	return found
}

const followersFolder = "../../internal/bench/testdata"

// installNode copies the program for Node.js into a new folder, and installs the package that the program needs from the
// Internet.
func installNode(b *testing.B, _ string) (command []string, err error) {
	b.Helper()
	node, err := osexec.LookPath("node")
	if err != nil {
		return nil, err
	}
	folder := b.TempDir()
	program, err := os.ReadFile(filepath.Join(followersFolder, "follower.mjs"))
	if err != nil {
		return nil, err
	}
	script := filepath.Join(folder, "follower.mjs")
	if err := os.WriteFile(script, program, 0o644); err != nil {
		return nil, err
	}
	return []string{node, script}, build(b, folder, "npm", "install", "--no-audit", "--no-fund", "pg-logical-replication@2.5.0")
}

// buildGo builds a program that is a separate Go module. It downloads the module's packages from the Internet.
func buildGo(b *testing.B, name string) (command []string, err error) {
	b.Helper()
	program := filepath.Join(b.TempDir(), name)
	return []string{program}, build(b, filepath.Join(followersFolder, name), "go", "build", "-o", program, ".")
}

// build runs a command that may download something.
func build(b *testing.B, folder string, words ...string) error {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	cmd := osexec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir, cmd.WaitDelay = folder, time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", words[0], err, out)
	}
	return nil
}

// drain returns the time that the program takes to drain a slot. If the program fails, drain logs the error and returns 0.
func (f *follower) drain(b *testing.B, url, slot, publication string, target pglogrepl.LSN, rows int) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	var stderr strings.Builder
	cmd := osexec.CommandContext(ctx, f.command[0], append(f.command[1:], url, slot, publication, target.String(), strconv.Itoa(rows))...)
	cmd.Stderr = &stderr
	start := time.Now()
	out, err := cmd.Output()
	took := time.Since(start)
	if err != nil {
		b.Logf("%s is left out: %v: %s", f.name, err, stderr.String())
		return 0
	}
	var n int
	if _, err := fmt.Sscan(string(out), &n); err != nil || n != rows {
		b.Fatalf("%s saw %d rows of %d (%v)", f.name, n, rows, err)
	}
	return took
}

// copyBeforeStream runs the steps of a Source that precede the stream.
func copyBeforeStream(b *testing.B, s *Source, t *snapshot.Table) *rowjson.Encoder {
	b.Helper()
	ctx := b.Context()
	origin, err := s.open(ctx)
	if err != nil {
		b.Fatal(err)
	}
	start, err := s.createSlotOrPlainRead(ctx, t, origin)
	if err != nil {
		b.Fatal(err)
	}
	encoder, err := s.copyTable(ctx, t, start, origin)
	if err != nil {
		b.Fatal(err)
	}
	return encoder
}
