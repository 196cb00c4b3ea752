// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"syscall"
	"time"
	"unsafe"
)

// clockBoottime is CLOCK_BOOTTIME of <time.h>.
const clockBoottime = 7

// bootClock is the time since boot, suspend included: the clock of package time stands still while
// a machine sleeps, and waking up would look like a step of the wall clock (rule R21).
func bootClock() func() time.Duration {
	return func() time.Duration {
		var ts syscall.Timespec
		_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockBoottime,
			uintptr(unsafe.Pointer(&ts)), 0)
		if errno != 0 {
			panic("BUG: clock_gettime: " + errno.Error()) // every Linux that Go runs on has it
		}
		return time.Duration(ts.Nano())
	}
}
