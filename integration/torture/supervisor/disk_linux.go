// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"strconv"
	"syscall"
)

// diskBytes is the size of the small disk.
const diskBytes = 384 << 20

// mountSmall mounts a small file system, which only root may.
func mountSmall(dir string) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(diskBytes))
}

func unmount(dir string) { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }
