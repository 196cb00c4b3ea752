// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package integration

import (
	"syscall"
	"testing"
)

func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// asNobody makes a child run without rights. Only root can do that.
func asNobody(attr *syscall.SysProcAttr) {
	attr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
}

// smallDisk skips: mounting a file system of a given size is different everywhere.
func smallDisk(t *testing.T, _ string) string {
	t.Helper()
	t.Skip("a full disk needs a small file system; this test knows how on Linux only")
	return ""
}
