// SPDX-License-Identifier: Apache-2.0

// Package planted holds mistakes for the exam of the simulation: each breaks one rule in the way a
// tired programmer would, and internal/sim must find it. In every build but one with the tag
// "exam" Is is constant and false, and the compiler leaves no trace of them.
package planted

// Bug is a mistake that can be planted.
type Bug uint8

// The mistakes.
const (
	None                  Bug = iota
	AckWithoutSync            // replies leave before their batch is on the disk (S4)
	DropBeforeNoted           // rows are dropped whose upload is not committed (S7, C7)
	IgnoreHorizon             // a cancel does not ask what a crash may have interrupted (R8)
	CancelUnmarked            // a cancelled message leaves no mark for its segment (R1)
	WatermarkTooHigh          // the watermark passes the lowest open key (S3)
	OutcomeMisplaced          // an outcome does not look for a row that was parked meanwhile
	MarksForgotten            // a hydrate does not look at marks (R1)
	BatchAck                  // a batch shares the fate of its first message (S7 of the contract)
	EarlyByOne                // the core's clock is a millisecond ahead (S1)
	NonceForgotten            // an interrupted take is not remembered (R10)
	BuffersTrusted            // nothing is looked for after a crash: it was in the upload buffer
	PredicateForgotten        // a hydrate does not look at bulk cancels (R6)
	PredicateCountedTwice     // a bulk cancel does not remember what it counted (R15)

	DeleteAtOnce      // objects are deleted without grace (T2)
	DeleteUnread      // and without another look at the manifest (T2)
	SweepUnread       // the manifest is read before the bucket is listed (T2)
	SweepYoung        // an orphan may be of any age (T2)
	InputsFirst       // the inputs of a compaction are deleted before its commit (T8)
	CompactOverdue    // a compaction leaves out what is due, marked or not (U1)
	MarksApplied      // marks retire when compactions have applied them (R6)
	KeptBehind        // kept segments retire behind the watermark (R5)
	MarkTooNew        // a watermark is committed that is newer than the rest of the cut (R5)
	CollectNothing    // nothing is ever collected
	NoPause           // a new owner claims at once (R11)
	OldDiskBelieved   // a data directory is believed whatever the manifest says (R10)
	ManifestRecreated // a manifest that vanished is created again (R10)
	FencedGoesOn      // an owner that reads another's manifest goes on (R11)
	TakenUnread       // the shard is taken from an owner that was not looked at (R10)
	ParkedMissed      // rows that are parked while others are read back are in no cut (R5)
	Bugs              // how many there are, None included
)

// String names the bug in the table of the exam.
func (b Bug) String() string {
	return [...]string{
		"none", "ack without sync", "drop before the upload is noted",
		"cancel ignores the claim horizon", "cancel without a mark", "watermark one too high",
		"outcome misses a parked row", "hydrate forgets marks", "batch-level ack",
		"fires 1 ms early", "forgets the nonce of an interrupted take",
		"trusts the upload buffer after a crash", "hydrate forgets bulk cancels",
		"bulk cancel counted twice",
		"deletes without grace", "deletes without reading again", "sweeps by an older manifest",
		"sweeps what is young", "deletes inputs before the commit",
		"compaction drops what is due", "marks retire once applied",
		"kept segments retire behind the watermark", "watermark of a newer cut",
		"collects nothing", "takeover without pause", "believes an old disk",
		"creates a vanished manifest again", "goes on when fenced", "takes without looking",
		"forgets what is parked while reading back",
	}[b]
}
