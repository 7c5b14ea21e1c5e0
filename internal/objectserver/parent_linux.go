package objectserver

import (
	"os/exec"
	"syscall"
)

// endWithParent makes the kernel kill the process when the test program ends, even if the test program is killed.
func endWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
