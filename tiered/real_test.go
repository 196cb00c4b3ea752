// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"fmt"
	"testing"

	"github.com/cicadamq/cicada/tiered/objstore/s3/realtest"
)

// A shard's way through the tier in a store whose tags, lists and ranges are not ours.
func TestRealStore(t *testing.T) { endToEnd(t, realtest.Open(t)) }

// The model's histories with faults and crashes, on conditions that a real store checks. Its clock
// is not the model's: no orphan gets old there.
func TestRealStoreModel(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			m := newModel(t, seed)
			m.inner = realtest.Open(t)
			m.run()
		})
	}
}
