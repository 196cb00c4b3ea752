// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
)

// The bloom filter: 10 bits per id and 7 probes, 0.8 % false positives.
const (
	filterBits   = 10
	filterProbes = 7
)

// newFilter is the filter of the ids whose hashes are given.
func newFilter(dst []byte, hashes []uint64) []byte {
	n := filterLen(int64(len(hashes)))
	start := len(dst)
	dst = append(dst, make([]byte, n)...)
	f := dst[start:]
	for _, h := range hashes {
		step := h>>33 | 1
		for range filterProbes {
			bit := h % uint64(n*8)
			f[bit/8] |= 1 << (bit % 8)
			h += step
		}
	}
	return dst
}

func filterLen(ids int64) int64 { return (ids*filterBits + 7) / 8 }

func checkFilter(f []byte, ids int64) error {
	if int64(len(f)) != filterLen(ids) {
		return fmt.Errorf("%w: segment filter: %d bytes for %d ids", delay.ErrCorrupt, len(f), ids)
	}
	return nil
}

// MayHaveID reports whether the segment may hold id; false is certain.
func (x *Index) MayHaveID(id string) bool {
	if len(x.filter) == 0 {
		return false
	}
	h := codec.Hash64(id)
	step, n := h>>33|1, uint64(len(x.filter)*8)
	for range filterProbes {
		bit := h % n
		if x.filter[bit/8]&(1<<(bit%8)) == 0 {
			return false
		}
		h += step
	}
	return true
}
