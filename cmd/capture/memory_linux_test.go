package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"capture/capture"
	"capture/store/manifest"
)

// TestMemoryOfLargeVotes checks that a daemon with little memory stays alive, stays within its memory limit, and counts the
// votes that do not fit. The table has more rows than fit into this memory. The test also inserts and updates very large
// votes, some of which are too large to fit even alone. Most of the large votes consist of control characters, each of which
// takes six bytes in JSON. CAPTURE_TEST_MEMORY=1 tries more limits.
func TestMemoryOfLargeVotes(t *testing.T) {
	if testing.Short() {
		t.Skip("captures very large votes")
	}
	t.Parallel()
	limits, huge := []int64{64}, 30<<20
	if os.Getenv("CAPTURE_TEST_MEMORY") != "" {
		limits, huge = []int64{64, 128, 256, 512, 1024}, 100<<20
	}
	for _, limit := range limits {
		t.Run(fmt.Sprintf("%dMB", limit), func(t *testing.T) { testMemoryOfLargeVotes(t, limit, huge) })
	}
}

// testMemoryOfLargeVotes tests one memory limit. huge is the number of characters in the longest comment.
func testMemoryOfLargeVotes(t *testing.T, limitMB int64, huge int) {
	const mb = 1 << 20
	largest := max((limitMB-40)*mb/20, mb) // maximum size of a vote's JSON in bytes; see docs/operations.md#memory
	url := votesDatabase(t, 0)
	sql(t, url, fmt.Sprintf("INSERT INTO votes (user_query, comment) SELECT md5(i::text), repeat('filler ', 1000) FROM generate_series(1, %d) i", limitMB*100),
		fmt.Sprintf("INSERT INTO votes (vote_id, comment) SELECT 1000000 + i, repeat(chr(1), %d) FROM generate_series(1, 4) i", largest*9/10/6),
		fmt.Sprintf("INSERT INTO votes (vote_id, comment) VALUES (2000001, repeat(chr(1), %d)), (2000002, repeat('x', %d))", largest*11/10/6, huge))
	cmd := prepare(context.Background(), t.TempDir(), []string{"DATABASE_URL=" + url}, "run", "--listen=127.0.0.1:0", fmt.Sprintf("--memory=%dMB", limitMB))
	cmd.Path = plain
	d := startCommand(t, cmd)
	omits := func(n int) {
		t.Helper()
		d.status(func(s capture.Status) bool { return s.State == "following" && s.Omitted == n && s.File.UpToDate })
	}
	omits(2)
	sql(t, url, "UPDATE votes SET user_query = 'again' WHERE vote_id > 1000000",
		fmt.Sprintf("INSERT INTO votes (vote_id, comment) VALUES (2000003, repeat(chr(1), %d))", huge),
		fmt.Sprintf("INSERT INTO votes (vote_id, comment) SELECT 3000000 + i, repeat(chr(1), %d) FROM generate_series(1, 4) i", largest*9/10/6))
	omits(3)
	for range 3 {
		sql(t, url, "UPDATE votes SET comment = comment || 'x' WHERE vote_id BETWEEN 1000001 AND 1999999 OR vote_id > 3000000")
	}
	omits(3)
	sql(t, url, "DELETE FROM votes WHERE vote_id BETWEEN 2000000 AND 2999999")
	omits(0)
	d.ready()
	r := run(t, d.dir, nil, "snapshot")
	if r.code != 0 {
		t.Errorf("capture snapshot: code %d, %s", r.code, r.stderr)
	}
	manifest, err := manifest.Read(d.path)
	if want := int(limitMB*100 + 8); err != nil || manifest.Rows != want {
		t.Errorf("the file has %d rows; want %d; %v", manifest.Rows, want, err)
	}
	peak := peakMemory(t, d.cmd.Process.Pid)
	t.Logf("--memory %dMB: a vote may take %d kB of JSON; the process took %d MB at most", limitMB, largest>>10, peak>>20)
	if peak > limitMB*mb {
		t.Errorf("the process took %d MB at most; want %d MB", peak>>20, limitMB)
	}
}

// peakMemory returns the largest resident memory of a process in bytes, without the pages of its binary, which the kernel can
// drop.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	kilobytes := map[string]int64{}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64); err == nil {
			kilobytes[name] = n
		}
	}
	if kilobytes["VmHWM"] == 0 || kilobytes["RssFile"] == 0 {
		t.Fatalf("the process has no memory:\n%s", status)
	}
	return (kilobytes["VmHWM"] - kilobytes["RssFile"]) << 10
}
