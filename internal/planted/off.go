// SPDX-License-Identifier: Apache-2.0

//go:build !exam

package planted

// Is reports whether b is planted. It never is.
func Is(Bug) bool { return false }
