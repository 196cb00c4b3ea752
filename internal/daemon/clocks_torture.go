// SPDX-License-Identifier: Apache-2.0

//go:build torture && linux

package daemon

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// clockVariable names a file of two int64 in the machine's byte order: the nanoseconds by which the
// wall clock and the boot clock of this process are ahead of the machine's. Whoever writes to the
// file steps the clocks at once, because it is mapped into memory. Only a build with the tag
// torture, which integration/torture makes, has it.
const clockVariable = "CICADA_TORTURE_CLOCK"

// clocks are the clocks of the machine, set forward or back by what the file says.
func clocks(now func() time.Time) (func() time.Time, func() time.Duration, error) {
	boot := bootClock()
	name := os.Getenv(clockVariable)
	if name == "" {
		return now, boot, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, fmt.Errorf("clocks: %w", err)
	}
	defer file.Close()
	memory, err := syscall.Mmap(int(file.Fd()), 0, int(unsafe.Sizeof([2]atomic.Int64{})),
		syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("clocks: map %s: %w", name, err)
	}
	ahead := (*[2]atomic.Int64)(unsafe.Pointer(unsafe.SliceData(memory)))
	wall := func() time.Time {
		return now().Round(0).Add(time.Duration(ahead[0].Load()))
	}
	since := func() time.Duration {
		return boot() + time.Duration(ahead[1].Load())
	}
	return wall, since, nil
}
