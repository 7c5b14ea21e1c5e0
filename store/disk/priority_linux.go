package disk

import "golang.org/x/sys/unix"

// lowerPriority gives the current thread the lowest priority for the processor (setpriority(2)) and for disks (ioprio_set(2),
// class idle). On Linux, both calls change only this thread.
func lowerPriority() {
	const (
		lowest              = 19
		ioprioWhoProcess    = 1
		ioprioClassIdleData = 3 << 13
	)
	unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), lowest)
	unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioClassIdleData)
}
