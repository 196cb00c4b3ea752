// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// Sums that leave a level out, or take a mark of an id alone for a message due in 1970, mislead
// whoever looks for what the bucket costs.
func TestGroups(t *testing.T) {
	info := func(level uint8, first, last delay.Due, at delay.Due) SegmentInfo {
		return SegmentInfo{Level: level, First: delay.Key{Due: first}, Last: delay.Key{Due: last},
			Count: 2, Bytes: 30, Stored: 10, CommittedAt: at}
	}
	s := State{
		Segments: []SegmentInfo{info(0, 50, 60, 3), info(1, 10, 20, 2), info(0, 40, 45, 4)},
		Marks:    []SegmentInfo{info(0, 0, 0, 9), info(0, 0, 70, 8), info(0, 65, 80, 7)},
	}
	require.Equal(t, []Group{
		{Kind: KindSegment, Objects: 2, Items: 4, Bytes: 60, Stored: 20, First: 40, Last: 60,
			Oldest: 3, Newest: 4},
		{Kind: KindSegment, Level: 1, Objects: 1, Items: 2, Bytes: 30, Stored: 10, First: 10,
			Last: 20, Oldest: 2, Newest: 2},
		{Kind: KindMarks, Objects: 3, Items: 6, Bytes: 90, Stored: 30, First: 65, Last: 80,
			Oldest: 7, Newest: 9},
	}, s.Groups())
	require.Empty(t, (&State{}).Groups())
}
