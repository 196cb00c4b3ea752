// SPDX-License-Identifier: Apache-2.0

package brokertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// Clock is what Intake.Now answers, until Advance. No broker's clock is behind it.
const Clock = delay.Due(4_000_000_000_000)

// RefusedPrefix begins the ids that an Intake refuses for ever, as a shard refuses what contradicts
// what it holds.
const RefusedPrefix = "refused-"

// ErrUnknown is the error of a Take that may or may not have been taken.
var ErrUnknown = errors.New("the connection broke, whether before or after is unknown")

// Fault is what goes wrong with a call of Take.
type Fault struct {
	Err    error // of the call; nil is none
	Stored bool  // the batch is stored all the same
}

// Taken is an item as an Intake stored it. Everything in it is a copy.
type Taken struct {
	Partition broker.Partition
	Offset    int64
	Draft     delay.Draft
	Cancel    delay.ID
	Tier      bool
}

// ID is the id of the message or of the cancel.
func (k Taken) ID() delay.ID {
	if k.Cancel != "" {
		return k.Cancel
	}
	return k.Draft.ID
}

// Intake is a shard's side of a source as tests see it: it keeps what it takes, checks how it is
// called, and fails, waits and forgets when told to. It is safe for concurrent use.
type Intake struct {
	calls atomic.Int64
	later atomic.Int64 // the clock is so many ms beyond Clock

	mu       sync.Mutex
	parts    map[broker.Partition]*part
	script   func(call int, b *broker.Batch) Fault
	gate     chan struct{} // nil when open; closed to open
	manual   bool          // Covered moves with Cover alone
	breaches []string
}

// part is what is kept of a partition.
type part struct {
	cursor, covered int64
	read, safe      bool // there is a cursor, a covered one
	busy            bool
	taken           []Taken
}

var _ broker.Intake = (*Intake)(nil)

// NewIntake is an empty one that takes everything; what it takes is covered at once.
func NewIntake() *Intake { return &Intake{parts: map[broker.Partition]*part{}} }

// Now is Clock, and what was added to it.
func (in *Intake) Now() delay.Due { return Clock + delay.Due(in.later.Load()) }

// Advance lets time pass.
func (in *Intake) Advance(d time.Duration) { in.later.Add(d.Milliseconds()) }

// Cursor is where to go on.
func (in *Intake) Cursor(p broker.Partition) (int64, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	k := in.part(p)
	return k.cursor, k.read
}

// Covered is the cursor, or what Cover made of it.
func (in *Intake) Covered(p broker.Partition) (int64, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	k := in.part(p)
	if in.manual {
		return k.covered, k.safe
	}
	return k.cursor, k.read
}

// Take stores a batch, unless the script says otherwise.
func (in *Intake) Take(ctx context.Context, b *broker.Batch) error {
	call := int(in.calls.Add(1))
	in.enter(b)
	defer in.leave(b)
	before := copyItems(b)
	if err := in.pass(ctx); err != nil {
		return err
	}
	if err := in.refuse(ctx, b); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	var f Fault
	if in.script != nil {
		f = in.script(call, b)
	}
	if !reflect.DeepEqual(before, copyItems(b)) {
		in.breach("a batch of %s changed while it was taken", b.Partition)
	}
	if f.Err == nil || f.Stored {
		in.store(b)
	}
	return f.Err
}

// refuse has what is refused copied, before the cursor passes it.
func (in *Intake) refuse(ctx context.Context, b *broker.Batch) error {
	from, _ := in.Cursor(b.Partition)
	for i := range b.Items {
		it := &b.Items[i]
		if it.Err = nil; strings.HasPrefix(string(idOf(it)), RefusedPrefix) {
			it.Err = delay.Invalid("id", "names other content")
		}
	}
	return b.CopyRefused(ctx, from)
}

func idOf(it *broker.Item) delay.ID {
	if it.Cancel != "" {
		return it.Cancel
	}
	return it.Draft.ID
}

// store keeps what is not below the cursor. Called with the lock.
func (in *Intake) store(b *broker.Batch) {
	k := in.part(b.Partition)
	for i := range b.Items {
		it := &b.Items[i]
		if k.read && it.Offset < k.cursor || it.Err != nil {
			continue
		}
		k.taken = append(k.taken, copyItem(b, it))
	}
	k.cursor, k.read = max(k.cursor, b.Next), true
}

// enter checks a batch against what Batch and Take ask for.
func (in *Intake) enter(b *broker.Batch) {
	in.mu.Lock()
	defer in.mu.Unlock()
	k := in.part(b.Partition)
	if k.busy {
		in.breach("two calls at once take from %s (B5)", b.Partition)
	}
	k.busy = true
	if len(b.Items) > broker.MaxBatch {
		in.breach("%d items in a batch", len(b.Items))
	}
	for i, it := range b.Items {
		switch {
		case i > 0 && it.Offset <= b.Items[i-1].Offset:
			in.breach("%s: offset %d follows %d (B5)", b.Partition, it.Offset,
				b.Items[i-1].Offset)
		case it.Offset >= b.Next:
			in.breach("%s: offset %d, but next is %d", b.Partition, it.Offset, b.Next)
		case it.Cancel == "" && it.Draft.ID == "":
			in.breach("%s: the message at %d has no id (R17)", b.Partition, it.Offset)
		}
	}
}

func (in *Intake) leave(b *broker.Batch) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.part(b.Partition).busy = false
}

// pass waits at the gate.
func (in *Intake) pass(ctx context.Context) error {
	for ctx.Err() == nil {
		in.mu.Lock()
		gate := in.gate
		in.mu.Unlock()
		if gate == nil {
			return nil
		}
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// part is a partition's. Called with the lock.
func (in *Intake) part(p broker.Partition) *part {
	k := in.parts[p]
	if k == nil {
		k = &part{}
		in.parts[p] = k
	}
	return k
}

// breach notes that the source did what it must not. Called with the lock.
func (in *Intake) breach(format string, args ...any) {
	const enough = 20
	if len(in.breaches) < enough {
		in.breaches = append(in.breaches, fmt.Sprintf(format, args...))
	}
}

// Parts are the partitions that have a cursor.
func (in *Intake) Parts() (parts []broker.Partition) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for name, k := range in.parts {
		if k.read {
			parts = append(parts, name)
		}
	}
	return parts
}

// Breaches is what the source did that it must not.
func (in *Intake) Breaches() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.breaches)
}

// Script decides about every later call of Take, counted from 1 over the life of the Intake. It
// runs under a lock and must not call back. nil takes everything.
func (in *Intake) Script(script func(call int, b *broker.Batch) Fault) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.script = script
}

// Calls is how often Take was called.
func (in *Intake) Calls() int { return int(in.calls.Load()) }

// Hold lets Take wait, until Release or the end of its context.
func (in *Intake) Hold() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.gate == nil {
		in.gate = make(chan struct{})
	}
}

// Release ends Hold.
func (in *Intake) Release() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.gate != nil {
		close(in.gate)
		in.gate = nil
	}
}

// HoldCover keeps Covered where it is, from now on, until Cover.
func (in *Intake) HoldCover() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.manual = true
}

// Cover moves Covered to the cursors, as the commit of a manifest does.
func (in *Intake) Cover() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, k := range in.parts {
		k.covered, k.safe = k.cursor, k.read
	}
}

// LoseDisk forgets what is not covered: the cursors are the manifest's again. After HoldCover
// without a Cover that is everything.
func (in *Intake) LoseDisk() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, k := range in.parts {
		if !in.manual {
			k.covered, k.safe = k.cursor, k.read
		}
		k.cursor, k.read = k.covered, k.safe
		k.taken = slices.DeleteFunc(k.taken, func(t Taken) bool {
			return !k.safe || t.Offset >= k.covered
		})
	}
}

// Taken is all that is stored: of one partition in the order of its commits, the partitions in the
// order of their names.
func (in *Intake) Taken() []Taken {
	in.mu.Lock()
	defer in.mu.Unlock()
	var all []Taken
	for _, p := range slices.SortedFunc(maps.Keys(in.parts), cmp.Compare[broker.Partition]) {
		all = append(all, in.parts[p].taken...)
	}
	return all
}

// count is how many of the items that are stored is says yes to. It copies nothing: who waits asks
// often.
func (in *Intake) count(is func(*Taken) bool) (n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, k := range in.parts {
		for i := range k.taken {
			if is(&k.taken[i]) {
				n++
			}
		}
	}
	return n
}

// copyItems is a deep copy of what a source must not change during Take. Offsets and errors are
// not part of it.
func copyItems(b *broker.Batch) []Taken {
	out := make([]Taken, len(b.Items))
	for i := range b.Items {
		out[i] = copyItem(b, &b.Items[i])
	}
	return out
}

func copyItem(b *broker.Batch, it *broker.Item) Taken {
	k := Taken{
		Partition: broker.Partition(strings.Clone(string(b.Partition))), Offset: it.Offset,
		Draft: it.Draft, Cancel: delay.ID(strings.Clone(string(it.Cancel))), Tier: b.Tier,
	}
	d := &k.Draft
	d.ID = delay.ID(strings.Clone(string(d.ID)))
	d.Target = delay.Target(strings.Clone(string(d.Target)))
	d.RoutingKey = strings.Clone(d.RoutingKey)
	d.Body = slices.Clone(d.Body)
	d.Headers = slices.Clone(d.Headers)
	for i, h := range d.Headers {
		d.Headers[i] = delay.Header{Name: strings.Clone(h.Name), Value: strings.Clone(h.Value)}
	}
	if d.Recurrence != nil {
		d.Recurrence = new(*d.Recurrence)
	}
	return k
}
