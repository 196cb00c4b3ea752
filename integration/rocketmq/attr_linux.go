// SPDX-License-Identifier: Apache-2.0

package rocketmq

import "syscall"

// childAttr lets a child die with this process, even when that is killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
