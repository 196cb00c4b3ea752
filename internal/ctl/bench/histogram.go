// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math"
	"math/bits"
	"time"
)

// subBuckets is the resolution: a value is known to 1/64, below 2 %.
const (
	subBits    = 6
	subBuckets = 1 << subBits
)

// histogram counts durations in logarithmic buckets of microseconds, so that a run of any length
// needs 30 KiB. The zero value is empty; it belongs to one goroutine.
type histogram struct {
	counts [64 * subBuckets]int64
	n      int64
	max    time.Duration
}

func bucketOf(us uint64) int {
	if us < subBuckets {
		return int(us)
	}
	shift := bits.Len64(us) - subBits - 1
	return (shift+1)*subBuckets + int(us>>shift) - subBuckets
}

// upper is the largest value of a bucket in microseconds.
func upper(bucket int) uint64 {
	if bucket < subBuckets {
		return uint64(bucket)
	}
	shift := bucket/subBuckets - 1
	return (uint64(bucket%subBuckets+subBuckets)+1)<<shift - 1
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d.Microseconds()))]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile is the value that a share q of all are at or below, in milliseconds.
func (h *histogram) quantile(q float64) float64 {
	rank := int64(math.Ceil(q * float64(h.n)))
	for i, n := range h.counts {
		if rank -= n; n > 0 && rank <= 0 {
			return min(milliseconds(time.Duration(upper(i))*time.Microsecond), milliseconds(h.max))
		}
	}
	return 0
}

// milliseconds rounds to three digits after the point.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}
