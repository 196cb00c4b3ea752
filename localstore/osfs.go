// SPDX-License-Identifier: Apache-2.0

package localstore

import "github.com/cockroachdb/pebble/v2/vfs"

// OS is the machine's file system, for Open and SetAside: callers need not import Pebble for it.
func OS() vfs.FS { return vfs.Default }
