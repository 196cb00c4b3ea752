// SPDX-License-Identifier: Apache-2.0

package upkeep

import (
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// Keeper decides which records of its inputs a compaction copies (U1).
type Keeper struct {
	// Watermark is the committed one of the manifest that lists the inputs. The zero key for kept
	// segments, which hold what the watermark has passed (rule R5).
	Watermark delay.Key
	Now       delay.Due
	Window    time.Duration // how long ids are remembered
	// Purged, if set, reports whether a settled bulk cancel covers the record (rule R6).
	Purged func(key delay.Key, record []byte) bool

	marks []markRef // sorted by key once sealed
	next  int       // the marks before it are below the last key asked for
}

// markRef is what a Keeper needs of a mark.
type markRef struct {
	key delay.Key
	// named: the id's outcome is in the mark itself, or the id moved on to another key.
	named bool
	at    delay.Due
}

// AddMarks tells of committed marks, in any order.
func (k *Keeper) AddMarks(marks []delay.Mark) {
	for i := range marks {
		if m := &marks[i]; !m.Key.IsZero() {
			k.marks = append(k.marks, markRef{
				key: m.Key, named: m.ID != "" || m.State == delay.Scheduled, at: m.At,
			})
		}
	}
}

// Seal ends AddMarks.
func (k *Keeper) Seal() {
	slices.SortFunc(k.marks, func(a, b markRef) int { return a.key.Compare(b.key) })
}

// Keep reports whether a compaction must copy the record. It is asked in the order of the keys.
//
// A finished record with an id of its client stays for the dedupe window, unless its mark says what
// became of the id: a restore finds ids in segments and outcomes in marks (rule R14).
func (k *Keeper) Keep(key delay.Key, record []byte) bool {
	for k.next < len(k.marks) && k.marks[k.next].key.Less(key) {
		k.next++
	}
	for i := k.next; i < len(k.marks) && k.marks[i].key == key; i++ {
		if m := &k.marks[i]; m.named || m.at.Add(k.Window) < k.Now || !hasID(record) {
			return false
		}
	}
	if planted.Is(planted.CompactOverdue) && key.Due <= k.Now {
		return false
	}
	if key.Less(k.Watermark) {
		return key.Due.Add(k.Window) >= k.Now && hasID(record)
	}
	return k.Purged == nil || !k.Purged(key, record)
}

// hasID reports whether the record carries an id that does not follow from its key. A record that
// cannot be read may have one.
func hasID(record []byte) bool {
	m, err := delay.DecodeRecord(record)
	return err != nil || m.ID != ""
}
