// SPDX-License-Identifier: Apache-2.0

package model

import (
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// IDs makes the ids of the simulated cluster.
func IDs() delay.IDMaker { return delay.NewIDMaker("simulated") }

// Pending finds the row of msg in a store, parked or not.
func (m *Model) Pending(store *localstore.Store, msg *Message) (delay.Key, bool, error) {
	rec, known, err := store.LookupID(string(msg.ID))
	key := rec.Key
	switch {
	case err != nil:
		return key, false, err
	case known && rec.State.Finished():
		return key, false, nil
	case !known && msg.Named: // perhaps not restored yet
		key = msg.Key
		if msg.Moved || key.IsZero() || !key.Less(store.Meta().Boundary) {
			return key, !msg.Final, nil
		}
	case !known:
		_, _, key = IDs().Parse(msg.ID)
	}
	if key.IsZero() {
		return key, false, nil
	}
	if row, err := store.Row(key); err == nil {
		return key, m.isOf(msg, row), nil
	}
	lane, parked, err := store.ParkedLane(key)
	if err != nil || !parked {
		return key, false, err
	}
	row, _, err := store.Parked(lane, key)
	return key, err == nil && m.isOf(msg, row), err
}

func (m *Model) isOf(msg *Message, row []byte) bool {
	got, err := delay.DecodeRecord(row)
	return err == nil && m.Find(got.ID, got.Body) == msg
}

// NoteKey remembers the key under which the message was stored first.
func (m *Message) NoteKey(store *localstore.Store) {
	switch {
	case m.Moved || m.Key.Seq > 0:
	case !m.Named:
		_, _, m.Key = IDs().Parse(m.ID)
	default:
		if rec, ok, err := store.LookupID(string(m.ID)); err == nil && ok {
			m.Key = rec.Key
		}
	}
}
