// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"fmt"

	"github.com/cicadamq/cicada/delay"
)

// Source reads requests from a broker and hands them to a shard: messages to keep and ids to
// cancel. It is the reverse of a Sink.
//
//	broker --records--> Source --Batch--> Intake (one commit: messages, cancels, cursor)
//	   ^                  |
//	   +-- acknowledged --+  once the cursor is as durable as the source was configured for
//
// # Invariants
//
//	B4  What a source acknowledges to its broker is at or below the position that Intake calls
//	    durable: a crash of the process, and with commit: tier the loss of the disk, is answered
//	    by reading again, never by a gap.
//	B5  Records of one partition are taken in order; a partition that moves away is not taken from
//	    any longer once the call that says so has returned.
//	B6  A record that cannot be a request, or that the shard refuses for ever, goes to the reject
//	    topic, or is counted and logged where there is none, and never stops its partition. It is
//	    there before the cursor passes it: a crash in between copies it again, and loses no copy.
type Source interface {
	// Run reads until ctx is done, and returns nil then. Connections that fail are made again; an
	// error says that the source can never work as configured.
	Run(ctx context.Context, in Intake) error
	// Close releases connections. Run has returned, or never ran.
	Close() error
}

// Partition names one ordered part of a source for ever: the broker's name, the topic's identity
// and the number, as in "kafka:main/3fK0…/7" (rule R17). It is also the name of its cursor.
type Partition string

// Item is one record of a partition: a message to keep, or an id to cancel. The answer is in Err.
type Item struct {
	Offset int64
	// Draft is the message. Its ID is never empty: a record without one gets an id from its
	// identity (rule R17), so that reading it again finds it.
	Draft delay.Draft
	// Cancel, if not "", withdraws this id instead; Draft is then not looked at.
	Cancel delay.ID
	// Err is why the item was not taken and never will be: a *delay.FieldError, or an error that
	// is delay.ErrExists (the id names other content) or delay.ErrUnimplemented. A repeated item,
	// and a cancel that comes too late or finds nothing, is no error.
	Err error
	// Copied says that Refused was told of the item: when it is refused again the cursor passes it.
	Copied bool
}

// Batch is a run of records of one partition, in the order of their offsets.
type Batch struct {
	Partition Partition
	Items     []Item
	// Next is the cursor after the batch: the offset at which to go on. It may be beyond the last
	// item, when records in between were no requests. It never moves back.
	Next int64
	// Tier asks that the messages are uploaded with the next flush, however short they wait
	// (rule R16): the source has commit: tier.
	Tier bool
	// Refused copies to where they are kept items that will never be taken and whose Err says why.
	// It is called from within Take, any number of times, before the cursor passes them (B6). The
	// items are some of Items; one of them may be taken after all. Its error ends Take: the cursor
	// is at the first of them then, or below. nil: the cursor passes what is refused.
	Refused func(ctx context.Context, items []*Item) error
}

// CopyRefused tells Refused of the items from the offset from on that have an Err and that it was
// not told of. It is for those who implement Intake.
func (b *Batch) CopyRefused(ctx context.Context, from int64) error {
	if b.Refused == nil {
		return nil
	}
	var items []*Item
	for i := range b.Items {
		if it := &b.Items[i]; it.Offset >= from && it.Err != nil && !it.Copied {
			items = append(items, it)
		}
	}
	if len(items) == 0 {
		return nil
	}
	if err := b.Refused(ctx, items); err != nil {
		return fmt.Errorf("copy what was refused of %s: %w", b.Partition, err)
	}
	for _, it := range items {
		it.Copied = true
	}
	return nil
}

// MaxBatch is the largest number of items in a Batch.
const MaxBatch = 1000

// Intake is the side of the shard that sources see. It is safe for concurrent use; one partition
// is taken from by one goroutine at a time.
type Intake interface {
	// Now is the guarded clock, from which relative delays count (S8).
	Now() delay.Due
	// Cursor is where to go on reading a partition, as stored with its messages; ok is false for a
	// partition that was never read. After the loss of the disk it is the manifest's.
	Cursor(p Partition) (next int64, ok bool)
	// Take stores a batch and its cursor in one commit and returns when that is synced to the
	// local disk; each item's Err says what became of it. The error of the call says that the
	// batch was not taken (delay.ErrOverloaded, delay.ErrDiskFull, delay.ErrUnavailable: try again
	// after a pause), or that it is unknown whether it was (try again too: what is below the
	// cursor is skipped), or that nothing more will be (delay.ErrClosed, delay.ErrFenced), or is
	// that of Refused. Drafts must stay unchanged until it returns.
	Take(ctx context.Context, b *Batch) error
	// Covered is the cursor that a committed manifest holds: all below it is in the bucket or
	// finished (rule R16), and may be acknowledged by a source with commit: tier. Without a bucket
	// it is what Cursor says.
	Covered(p Partition) (next int64, ok bool)
}

// Ledger is implemented by sinks that deliver exactly once: they make the messages and a record
// that lists them visible together, and can tell after any crash which ones were (rule R17). A
// batch and its entry have the entry's number; numbers grow, and one whose batch was given up is
// never used again.
type Ledger interface {
	// Recover makes this process the only writer, shutting out whoever wrote before, and only then
	// tells the entries above after, in order. It is called before the first Deliver, and again
	// until it succeeds. An entry that is missing is an error that is delay.ErrCorrupt: nothing
	// may be delivered then.
	Recover(ctx context.Context, after uint64, apply func(entry uint64, done []Done) error) error
	// Last is the number of the newest entry that is committed or may be: what is under way counts.
	// A Deliver that begins later gets a higher one.
	Last() uint64
	// Forget allows the ledger to remove the entries up to n: a manifest covers them.
	Forget(ctx context.Context, n uint64) error
}

// Done names what an entry of a ledger lists: one generation of one message.
type Done struct {
	ID         delay.ID
	Generation uint32
}
