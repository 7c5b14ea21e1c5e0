package objectserver

import (
	"os/exec"
	"syscall"
)

// endWithParent makes the process end when the tests end, even if they are killed.
func endWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
