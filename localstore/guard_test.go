// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/localstore/bloom"
)

// Until the filter is rebuilt after a crash any id may have a record: denied, it would be accepted
// twice (invariant L5, rule R14).
func TestUnknownFilterDoubts(t *testing.T) {
	f := newIDFilter()
	require.True(t, f.maybe("a"))
	f.current.Store(bloom.New(1))
	require.False(t, f.maybe("a"))
}
