// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// childAttr lets a child die with this process, even when that is killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// stopped reports whether every thread of a process has stopped: the signal is only sent when kill
// returns, and a thread that runs, or waits for a processor, may answer once more.
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return true // this system does not tell
	}
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		// "pid (name) state …", and a name may hold what it likes.
		if _, state, ok := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" ")); ok &&
			!bytes.HasPrefix(state, []byte("T")) {
			return false
		}
	}
	return true
}
