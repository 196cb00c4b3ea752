// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"syscall"
	"testing"
)

// childAttr lets a child die with the test, even when that is killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// asNobody makes a child run without rights. Only root can do that.
func asNobody(attr *syscall.SysProcAttr) {
	attr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
}

// smallDisk mounts a file system of so many bytes, or skips the test and says why.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a full disk needs a small file system, which only root can mount")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a full disk needs a small file system, and this machine mounts none: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}
