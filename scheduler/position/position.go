// SPDX-License-Identifier: Apache-2.0

// Package position keeps how far sources were read, and how much of that the bucket stands for
// (rule R16).
//
//	Take, with its messages --> Table.Read
//	                       '--> Notes --Split: safe in this cut?--> manifest --> Table.Covered
//
// A position is the offset at which to go on: everything below it was taken. It has the name of its
// partition, and never moves back.
package position

import (
	"encoding/binary"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// valueVersion is the first byte of a stored position.
const valueVersion = 1

// Append appends the stored form of a position: a version and a varint.
func Append(dst []byte, next int64) []byte {
	return binary.AppendVarint(append(dst, valueVersion), next)
}

// Parse reads what Append wrote. Anything else is a delay.ErrCorrupt.
func Parse(b []byte) (int64, error) {
	if len(b) == 0 || b[0] != valueVersion {
		return 0, fmt.Errorf("%w: position of %d bytes has no version that is known",
			delay.ErrCorrupt, len(b))
	}
	next, n := binary.Varint(b[1:])
	if n <= 0 || n != len(b)-1 {
		return 0, fmt.Errorf("%w: position of %d bytes", delay.ErrCorrupt, len(b))
	}
	return next, nil
}

// Note is a position and what must be true before the bucket stands for everything below it: the
// rows up to Seq are uploaded, the marks below Outbox too, and the watermark has passed Short.
type Note struct {
	Next   int64
	Since  delay.Due // when it was noted
	Seq    delay.Seq
	Outbox uint64
	// Short is the highest key of the messages below Next that are not for the tier; the zero key is
	// none. When the watermark is above it they are finished, or kept (rule R5).
	Short delay.Key
}

// Bounds of the notes of one partition. Joining notes is always right: the bucket only stands for
// less, for a little longer.
const (
	noteEvery = time.Second // notes of so long become one
	noteMost  = 128         // from here on every two become one
)

// Notes are the positions that no manifest holds yet, by partition, each ascending.
type Notes map[string][]Note

// Add notes a position that is not below the ones before.
func (n *Notes) Add(name string, note Note) {
	if *n == nil {
		*n = make(Notes)
	}
	list := (*n)[name]
	if k := len(list); k > 0 {
		last := &list[k-1]
		if note.Short.Less(last.Short) {
			note.Short = last.Short
		}
		if note.Since.Sub(last.Since) < noteEvery {
			note.Since = last.Since
			*last = note
			return
		}
	}
	if list = append(list, note); len(list) >= noteMost {
		for i := range len(list) / 2 {
			list[i] = list[2*i+1]
		}
		list = list[:len(list)/2]
	}
	(*n)[name] = list
}

// Merge adds what has come since.
func (n *Notes) Merge(later Notes) {
	for name, list := range later {
		for i := range list {
			n.Add(name, list[i])
		}
	}
}

// Split gives the newest position of each partition that is safe, in its stored form, and the notes
// above it. safe must not be true of a note above one of which it is false.
func (n Notes) Split(safe func(*Note) bool) (covered map[string][]byte, left Notes) {
	for name, list := range n {
		k := 0
		for k < len(list) && safe(&list[k]) {
			k++
		}
		if k > 0 {
			if covered == nil {
				covered = make(map[string][]byte, len(n))
			}
			covered[name] = Append(nil, list[k-1].Next)
		}
		for i := range list[k:] {
			left.Add(name, list[k+i])
		}
	}
	return covered, left
}

// Table is the positions of a shard, for those who ask. It is safe for concurrent use.
type Table struct {
	mu struct {
		sync.RWMutex
		read    map[string]int64
		covered map[string]int64
	}
	tiered bool
}

// NewTable makes a table that begins with what was read. Without a bucket what is read is covered.
func NewTable(tiered bool, read map[string]int64) *Table {
	t := &Table{tiered: tiered}
	t.mu.read = make(map[string]int64, len(read))
	t.mu.covered = make(map[string]int64)
	maps.Copy(t.mu.read, read)
	return t
}

// Read is how far a partition was read, synced to the local disk.
func (t *Table) Read(name string) (next int64, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	next, ok = t.mu.read[name]
	return next, ok
}

// Covered is how far a committed manifest stands for a partition.
func (t *Table) Covered(name string) (next int64, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if !t.tiered {
		next, ok = t.mu.read[name]
		return next, ok
	}
	next, ok = t.mu.covered[name]
	return next, ok
}

// SetRead notes that everything of a partition below next is synced to the local disk.
func (t *Table) SetRead(name string, next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.mu.read[name]; !ok || old < next {
		t.mu.read[name] = next
	}
}

// SetCovered notes what the committed manifest holds. One that cannot be read leaves its partition
// as it was: what is not known to be covered is not.
func (t *Table) SetCovered(cursors map[string][]byte) (failed error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, value := range cursors {
		next, err := Parse(value)
		if err != nil {
			failed = fmt.Errorf("cursor of %s in the manifest: %w", name, err)
			continue
		}
		t.mu.covered[name] = next
	}
	return failed
}
