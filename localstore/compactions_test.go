// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
)

// waitingDB has one compaction that waits.
type waitingDB struct {
	granted []pebble.CompactionGrantHandle
}

func (d *waitingDB) GetAllowedWithoutPermission() int { return 1 }

func (d *waitingDB) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	return len(d.granted) == 0, pebble.WaitingCompaction{}
}

func (d *waitingDB) Schedule(h pebble.CompactionGrantHandle) bool {
	d.granted = append(d.granted, h)
	return true
}

// A compaction that begins while the store is being opened makes the start wait for its end; one
// that never begins lets level 0 grow until writing stops.
func TestLateCompactions(t *testing.T) {
	db := &waitingDB{}
	l := newLateCompactions()
	l.Register(1, db)
	free, _ := l.TrySchedule()
	require.False(t, free, "while opening")
	l.UpdateGetAllowedWithoutPermission()
	l.grant()
	require.Empty(t, db.granted)
	l.begin()
	require.Len(t, db.granted, 1, "what waits begins at once")
	free, _ = l.TrySchedule()
	require.False(t, free, "the only place is taken")
	db.granted[0].Done()
	free, place := l.TrySchedule()
	require.True(t, free)
	place.Done()
	l.Unregister()
}
