package store_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A call is a system call of a traced child. It has the times of its beginning and its end, because an fsync makes only
// those bytes durable that were written before the fsync began.
type call struct {
	thread   string
	name     string
	args     []string
	ret      int64
	err      string // error, such as "EIO"; "" if the call succeeded
	began    int    // number of the trace line at which the call begins
	ended    int    // number of the trace line at which it ends
	injected bool
}

// arg returns argument i as a number, or -1 if it is not a number.
func (c *call) arg(i int) int64 {
	if i >= len(c.args) {
		return -1
	}
	n, err := strconv.ParseInt(c.args[i], 0, 64)
	if err != nil {
		return -1
	}
	return n
}

// text returns argument i, which is a string or a buffer.
func (c *call) text(i int) []byte {
	if i >= len(c.args) {
		return nil
	}
	s, err := unhex(c.args[i])
	if err != nil {
		panic(fmt.Sprintf("%s: argument %d: %v", c.name, i, err))
	}
	return s
}

// unhex decodes a string as strace prints it: "\x66\x65…". The race detector is off here, because it would make the loop ten
// times slower.
//
//go:norace
func unhex(s string) ([]byte, error) {
	quoted, ok := strings.CutPrefix(s, `"`)
	quoted, whole := strings.CutSuffix(quoted, `"`)
	if !ok || !whole || len(quoted)%4 != 0 {
		return nil, fmt.Errorf("not a whole string: %.60s", s)
	}
	out := make([]byte, len(quoted)/4)
	for i := range out {
		out[i] = nibble(quoted[4*i+2])<<4 | nibble(quoted[4*i+3])
	}
	return out, nil
}

//go:norace
func nibble(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

func (c *call) String() string {
	args := make([]string, len(c.args))
	for i, arg := range c.args {
		if b, err := unhex(arg); err == nil {
			arg = fmt.Sprintf("%.80q", b)
		}
		args[i] = arg[:min(len(arg), 120)]
	}
	return fmt.Sprintf("%s(%s) = %d %s", c.name, strings.Join(args, ", "), c.ret, c.err)
}

// buffer returns the bytes that the call passes to the kernel to write.
func (c *call) buffer() []byte {
	if !strings.HasSuffix(strings.TrimSuffix(c.name, "2"), "v") {
		return c.text(1)
	}
	var all []byte
	for rest := c.args[1]; ; {
		_, after, ok := strings.Cut(rest, `iov_base=`)
		if !ok {
			return all
		}
		s, tail, _ := strings.Cut(after, ", iov_len=")
		b, err := unhex(s)
		if err != nil {
			panic(err)
		}
		all, rest = append(all, b...), tail
	}
}

// traceError returns an error if this machine does not let a process trace its children, as in some containers. The tests
// that need strace are then skipped. TestSyncRefused, TestFullVolume, TestFileSizeLimit and TestCrashBetweenRenames need no
// strace, and still make some of the checks of the skipped tests.
var traceError = sync.OnceValue(func() error {
	out, err := exec.Command("strace", "-f", "-o", "/dev/null", "true").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// needStrace skips the test on a machine that does not let this user trace processes. It fails the test if strace is not
// installed.
func needStrace(t *testing.T) {
	t.Helper()
	err := traceError()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatal("there is no strace: run `make strace`")
	}
	if err != nil {
		t.Skipf("nothing can be traced here: %v", err)
	}
}

// traced runs a child under strace, and returns the child's system calls on files, in order. options are further options of
// strace.
func traced(file string, cmd *exec.Cmd, options ...string) ([]*call, error) {
	// With --seccomp-bpf, only the traced calls stop the child. -s limits how many bytes of a string strace prints. The limit
	// is far above the length of one write, so strace prints all data.
	args := append([]string{"--seccomp-bpf", "-f", "-qq", "-xx", "-s", "8388608", "-e", "trace=%desc,%file", "-e", "signal=none", "-o", file}, options...)
	strace := exec.Command("strace", append(append(args, cmd.Path), cmd.Args[1:]...)...)
	strace.Env = cmd.Env
	if out, err := strace.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strace, err, out)
	}
	trace, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseTrace(trace)
}

// parseTrace reads the output of strace -f. It returns the calls in the order in which they ended. A close is an exception:
// its place is where it began, because from then on the kernel can give its descriptor to another file.
func parseTrace(trace []byte) ([]*call, error) {
	var calls []*call
	type part struct {
		text  string
		began int
	}
	open := map[string]part{}
	s := bufio.NewScanner(bytes.NewReader(trace))
	s.Buffer(nil, 1<<30)
	for n := 0; s.Scan(); n++ {
		thread, text, _ := strings.Cut(s.Text(), " ")
		text = strings.TrimLeft(text, " ")
		began := n
		if strings.HasPrefix(text, "+++") || strings.HasPrefix(text, "---") {
			continue
		}
		if begin, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
			open[thread] = part{begin, n}
			if strings.HasPrefix(text, "close(") {
				calls = append(calls, &call{thread: thread, name: "close", args: []string{strings.TrimPrefix(begin, "close(")}, began: n, ended: n})
			}
			continue
		}
		if rest, ok := strings.CutPrefix(text, "<... "); ok {
			p, ok := open[thread]
			_, end, resumed := strings.Cut(rest, " resumed>")
			if !ok || !resumed {
				return nil, fmt.Errorf("line %d ends a call that did not begin: %.200s", n+1, text)
			}
			delete(open, thread)
			if strings.HasPrefix(p.text, "close(") {
				continue
			}
			text, began = p.text+end, p.began
		}
		c, err := parseCall(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		c.thread, c.began, c.ended = thread, began, n
		calls = append(calls, c)
	}
	return calls, s.Err()
}

// parseCall parses a call of the form "name(args) = result".
func parseCall(text string) (*call, error) {
	at := strings.LastIndex(text, " = ")
	name, rest, ok := strings.Cut(text, "(")
	if at < 0 || !ok {
		return nil, fmt.Errorf("not a call: %.200s", text)
	}
	args, whole := strings.CutSuffix(strings.TrimRight(rest[:at-len(name)-1], " "), ")")
	result := strings.Fields(text[at+len(" = "):])
	if !whole || len(result) == 0 {
		return nil, fmt.Errorf("not a whole call: %.200s", text)
	}
	c := &call{name: name, args: splitArgs(args), ret: -1, injected: strings.Contains(text[at:], "INJECTED")}
	if n, err := strconv.ParseInt(result[0], 0, 64); err == nil {
		c.ret = n
	}
	if c.ret == -1 && len(result) > 1 {
		c.err = result[1]
	}
	return c, nil
}

// splitArgs splits s at the commas that are outside of brackets. Strings contain no commas, because strace prints all their
// bytes in hex.
func splitArgs(s string) []string {
	var args []string
	depth, from := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"': // skip the string
			i += 1 + strings.IndexByte(s[i+1:], '"')
		case '[', '{', '(':
			depth++
		case ']', '}', ')':
			depth--
		case ',':
			if depth == 0 {
				args = append(args, strings.TrimSpace(s[from:i]))
				from = i + 1
			}
		}
	}
	if rest := strings.TrimSpace(s[from:]); rest != "" {
		args = append(args, rest)
	}
	return args
}

func init() {
	if os.Getenv("STORE_TEST_CHILD") != "" {
		runtime.LockOSThread() // strace counts the calls of each thread separately
	}
}
