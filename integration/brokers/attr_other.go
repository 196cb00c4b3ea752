// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package brokers

import "syscall"

func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// stopped does not know here.
func stopped(int) bool { return true }
