// SPDX-License-Identifier: Apache-2.0

package objstore

import (
	"fmt"
	"strings"
)

// MaxKeyBytes bounds a key, well below what every store and file system takes.
const MaxKeyBytes = 512

// CheckKey is nil when key may name an object, else an ErrRefused that says why: keys are made of
// [a-z0-9/._-], and no part between slashes is empty or begins with a dot, so that a key is also a
// safe path of a file.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKeyBytes {
		return fmt.Errorf("%w: key of %d bytes, want 1 to %d", ErrRefused, len(key), MaxKeyBytes)
	}
	for i := range len(key) {
		switch c := key[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '/', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("%w: key %q: byte %q is not allowed", ErrRefused, key, c)
		}
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part[0] == '.' {
			return fmt.Errorf("%w: key %q: part %q is not allowed", ErrRefused, key, part)
		}
	}
	return nil
}
