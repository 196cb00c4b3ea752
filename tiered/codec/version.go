// SPDX-License-Identifier: Apache-2.0

package codec

import "errors"

// ErrVersion is an object that a newer program wrote, beside delay.ErrCorrupt: for this program it
// is as unreadable as a damaged one, but another program reads it.
var ErrVersion = errors.New("other format version")
