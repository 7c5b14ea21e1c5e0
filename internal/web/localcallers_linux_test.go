package web

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() { forbidNetlink = setFilter }

// setFilter makes the kernel refuse netlink sockets to this process, as sandboxes do.
func setFilter() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: unix.SYS_SOCKET},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16}, // first argument of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.AF_NETLINK},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(syscall.EAFNOSUPPORT)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Without CAP_SYS_ADMIN, the kernel accepts a filter only if the same thread has made this call before.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// TestSandboxWithoutNetlink runs the server in a sandbox without netlink. It checks that the server answers every user of
// this machine over loopback, and that the log contains a warning.
func TestSandboxWithoutNetlink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, log := filepath.Join(dir, "feedback.json"), filepath.Join(dir, "log")
	if err := os.WriteFile(file, []byte("[]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	addr := asUser(t, 0, "serve-sandboxed", file, log)
	if code := asUser(t, otherUser, "get", "http://"+addr+"/feedback.json"); code != "200" {
		t.Errorf("another user: %s", code)
	}
	var text []byte
	for deadline := time.Now().Add(patience); len(text) == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text, _ = os.ReadFile(log)
	}
	if !strings.Contains(string(text), "every user of this machine is answered") || !strings.Contains(string(text), "--token-file") {
		t.Errorf("log: %s", text)
	}
	// If netlink works, nothing is logged.
	log += "2"
	asUser(t, 0, "serve", file, log)
	if text, err := os.ReadFile(log); err != nil || len(text) > 0 {
		t.Errorf("log with netlink: %s, %v", text, err)
	}
}
