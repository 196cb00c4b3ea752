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
	IDsUnchecked      // an accept does not look whether its id is known (S4)
	NackWholeLease    // a nack gives back the whole lease (S7)
	AcksOnTimer       // an ack is answered, and stored with the next group (S6)
	LeasesForgotten   // a restart does not know what is leased (S7)
	DoneUnmarked      // deliveries above the manifest's watermark get no mark (R12)
	PullTakesOver     // a new consumer takes over what others lease (S7)
	ReceiptUnread     // a receipt's attempt is not compared (R9)
	AckWithLease      // an ack is noted in memory, its row stays (S7)
	DrainUnsettled    // a drain does not wait for outcomes (S6)
	UnknownSpreads    // one unknown outcome makes its batch unknown (S7)
	RefusalHidden     // a refused ack is answered ACKED (R9)

	HorizonNotAwaited   // a push is claimed before its horizon is durable (R8)
	CursorNotAwaited    // a parked push is claimed before the lane's cursor is durable (R8)
	CursorForgotten     // a cancel does not ask the recovered claim cursor (R8)
	LoadUncut           // a load returns what was accepted after its cut (R7)
	LoadMissesFresh     // what is accepted into a range being loaded is not remembered (R7)
	LoadPastBoundary    // a load does not stop at the boundary (R1)
	FinishedLoaded      // a load does not leave out what was finished meanwhile (R7)
	WithdrawnLoaded     // a load does not leave out what was changed meanwhile (R7)
	EpochUnread         // the epoch of a receipt is not compared (R9)
	ExpiredInHand       // a message expires while it is being attempted (S6)
	AttemptsForgotten   // an attempt that failed is not written down (S7)
	LeaseGoesFirst      // a lease's record goes before the outcomes it brought (R8)
	ReplayTooHigh       // a start reads rows from above the watermark on (R1)
	KeyBehindWatermark  // a past due gets a key below the watermark (R2)
	DoneBeforeSent      // a push is finished before the sink has it (S2)
	IDsAnsweredEarly    // ids are answered before they are restored (R14)
	ContentUnread       // a repeated id is not compared by its content (S4)
	DuplicateUnwaited   // a duplicate's reply does not wait for the bucket (R13)
	AttemptUnasked      // a cancel does not ask for attempts made (S5)
	ClaimUnasked        // a cancel does not ask the core (S5)
	LostClaimsForgotten // a cancel does not ask what a lost disk may have handed out (R12)
	MoveUnmarked        // a moved message leaves no mark for its old key (R3)
	OutcomeForgotten    // a cancel leaves no record for its id (R14)
	ParkedUnclaimed     // what is parked does not say that it was claimed (R8)
	DeadUncounted       // a dead letter is not counted (S10)
	AcceptedUnseen      // the watermark passes what was accepted after the core looked (R2)
	UploadBeforeSync    // a flush takes rows that are not synced (R4)
	CancelWithoutSync   // a change is answered before its sync (S5)
	PullAckWithoutSync  // an ack of a consumer is answered before its sync (R9)
	BatchUnseen         // ids of the batch being built are not looked at (R14)
	DropBelowBoundary   // a row below the boundary is dropped (R1)
	BulkRowsPassed      // the boundary passes rows that a bulk cancel covers (R6)
	ReusedForgotten     // an id is forgotten though it was used again (S4)
	MarkBeforeRow       // a mark is uploaded before the row it points to (R3)
	PauseCutShort       // a crash ends the pause of a takeover (R11)
	EpochReused         // a start without a bucket keeps the epoch (R4)
	SeqReused           // a start on the last epoch counts from its beginning (R4)
	HorizonNotTaken     // a takeover has no horizon (R12)
	HalfRestored        // a restore that was interrupted is believed (R10)
	OwnCommitDisowned   // the commit that the disk did not note is taken for another's (R10)
	RestoreTooHigh      // a restore hydrates from above the watermark on (R1)
	BooksForgotten      // a restore begins with empty books (R15)
	LostUncounted       // what was lost with the disk stays pending (R15)
	MarksUnrestored     // a restore does not read the marks (R12)
	KeptThoughMarked    // a restore does not compare kept messages with marks (R5)
	KeptUnrestored      // a restore does not read kept segments (R5)
	TierAnsweredEarly   // durability tier does not wait for the bucket (R13)
	ChangeUnwaited      // a change of a tier message does not wait for the bucket (R13)
	LandedUnnoted       // a commit that got no answer is not looked for (R10)
	SilentGoesOn        // an isolated owner goes on though it should stop (R11)
	AwakeUnasked        // a process that stood still does not ask who owns the shard (R11)
	RetryRenamed        // a repeated attempt carries another id (S6)
	LeaseUnsynced       // a lease is given out before its sync (R8)
	LateAckBelieved     // an ack of an earlier attempt at what is finished is believed (R9)
	StepFollowed        // a forward step of the clock is followed (R21)
	StepBackFollowed    // a backward step of the clock is followed (R21)
	PurgeReachesLater   // a bulk cancel covers what is accepted later (R6)
	PredicateRetired    // a bulk cancel retires while a segment holds what it covers (R6)
	IDsRetireEarly      // a segment retires though its ids must be found (R14)
	OwnWriteFenced      // an own commit that was thought lost is taken for another's (S3)
	ConflictIsExists    // a conflict of two writes is taken for a failed condition (S3)
	ShortBodyTrusted    // the length of an answer is not compared (T1)
	ChecksumUnread      // the checksum of a block is not compared (T1)
	UploadUnverified    // an upload is not read back (T1)
	CommittedLate       // an upload of any age is committed (R22)
	CompactSkipsFirst   // a compaction leaves out the first message (T8)
	IdleOwnerBlind      // an owner with nothing to upload does not look (R11)
	FilterTrustedEarly  // the filter of ids is believed before it is whole (R14)
	WitnessUnwritten    // the witness is not written (L2)
	DueRoundedDown      // a due is rounded down (S8)
	GivenBackLeased     // what was given back is leased again by a restart (S7)
	LastForgotten       // a restart does not know which attempt is the last (S7)
	ShareForgotten      // a lane may take what all lanes together may have (C7)
	SlowStartMissing    // a closed breaker lets everything through at once (C7)
	BacklogFirst        // a backlog goes before what comes due (C8)
	LaneForgotten       // a lane is let go while the table still counts on it (C9)
	ClusterUnread       // a receipt of another cluster is believed (R9)
	DoneLost            // what was delivered before a crash gets no mark after it (S6)
	PausesForgotten     // a restore does not know which targets are paused
	IDStoredLater       // an id is stored in a commit after its message's (S4)
	WindowByTimer       // an id stays taken until its timer comes (S4)
	ReservedUnissued    // a reserved id is believed that nobody handed out (S4)
	WindowFromNow       // a load begins at the clock, not where the last one ended (R7)
	SuccessorLost       // a schedule fires and stays where it is (R20)
	FiringRepeated      // a firing is made although its id exists (R20)
	MissedInTime        // what was due while the shard did not run is not missed (R20)
	CursorBeforeRows    // a manifest's cursor does not wait for the rows below it (R16)
	ShortUncovered      // nor for those that wait too short to be uploaded (R16)
	CursorsUnrestored   // a restore forgets how far sources were read (R16)
	StartUnwitnessed    // the clock a daemon starts with is believed (R21)
	LimitForgotten      // a lane with a limit hands out what it likes (S9)
	CursorPassesFailed  // a cursor passes what could not be taken (R17)
	ScheduleCovered     // a bulk cancel covers schedules (R20)
	MaxWaitIgnored      // a replace moves a message beyond its max_wait (S4)
	LedgerGapPassed     // a gap in a ledger is read over (R17)
	LedgerUnread        // deliveries begin before the ledger was read (R17)
	FoundSentAgain      // what a ledger lists is sent again (R17)
	UnknownLetGo        // a position passes what ended nobody knows how (R17)
	UnheardForgotten    // ids of a ledger that nobody knows are not remembered (R17)
	GroupBelieved       // a source begins where its group is, not at the cursor (R16)
	PoisonPassed        // the cursor passes a record before its copy is in the reject topic
	RefusedUncopied     // the cursor passes what was refused before its copy is there (B6)
	CoverUnasked        // commit: tier is acknowledged before the bucket has it (R16)
	RevokedTakes        // a partition that moved away is still taken from
	AbortedRead         // requests of aborted transactions are read
	UnheardTaken        // sources bring again what a ledger lists before it is known (R17)
	GuardedUnchecked    // a judgment ends what was recalled meanwhile (R18)
	GuardedChanged      // users change what another broker holds (R19)
	HeldReleased        // what a guardian holds ends at once (R18)
	KeyBeforeLocator    // a guardian asks for the key before it looks where the copy is (R18)
	OneLook             // a guardian releases at the first look (R18)
	EarlyHitCounts      // what was stored before the due counts as its delivery (R18)
	MirrorNotAwaited    // a guardian does not wait for its mirror (R18)
	RollAsNew           // a timer that is written anew is another message (R18)
	Bugs                // how many there are, None included
)

// String names the bug in the tables of the exam.
func (b Bug) String() string { return words[b] }

// words are the names of the bugs, in their order.
var words = [...]string{
	"none",
	"ack without sync",
	"drop before the upload is noted",
	"cancel ignores the claim horizon",
	"cancel without a mark",
	"watermark one too high",
	"outcome misses a parked row",
	"hydrate forgets marks",
	"batch-level ack",
	"fires 1 ms early",
	"forgets the nonce of an interrupted take",
	"trusts the upload buffer after a crash",
	"hydrate forgets bulk cancels",
	"bulk cancel counted twice",
	"deletes without grace",
	"deletes without reading again",
	"sweeps by an older manifest",
	"sweeps what is young",
	"deletes inputs before the commit",
	"compaction drops what is due",
	"marks retire once applied",
	"kept segments retire behind the watermark",
	"watermark of a newer cut",
	"collects nothing",
	"takeover without pause",
	"believes an old disk",
	"creates a vanished manifest again",
	"goes on when fenced",
	"takes without looking",
	"forgets what is parked while reading back",
	"ids unchecked at accept",
	"nack of the whole lease",
	"acks stored on a timer",
	"restart forgets leases",
	"deliveries without marks",
	"consumers take over leases",
	"receipts of any attempt",
	"acks not stored",
	"drain loses outcomes",
	"unknown outcomes spread",
	"refused acks hidden",
	"claims ahead of the horizon",
	"claims ahead of the cursor",
	"cancel ignores the claim cursor",
	"load without a cut",
	"load misses what comes meanwhile",
	"loads beyond the boundary",
	"load brings back the finished",
	"load brings back the changed",
	"receipt of any epoch",
	"expires in the consumer's hand",
	"attempts are not written down",
	"lease deleted before its outcomes",
	"replay begins one too high",
	"key behind the watermark",
	"finished before it is sent",
	"answers ids before they are restored",
	"content not compared",
	"duplicate answered early",
	"cancel between attempts",
	"cancel of what is claimed",
	"forgets what a lost disk claimed",
	"move without a mark",
	"cancel not remembered",
	"parked as never claimed",
	"dead letter not counted",
	"watermark passes fresh keys",
	"uploads before the sync",
	"cancel without sync",
	"pull ack without sync",
	"ids of the batch unseen",
	"drop below the boundary",
	"boundary passes purged rows",
	"forgets an id in use",
	"mark before its row",
	"takeover's pause cut short",
	"epoch used again",
	"seqs used again",
	"takeover without a horizon",
	"believes half a restore",
	"disowns its own commit",
	"restore begins one too high",
	"books not carried over",
	"lost messages stay pending",
	"restore without marks",
	"restores what is finished",
	"restore without kept segments",
	"tier answered early",
	"change answered early",
	"landed commit not noted",
	"goes on without an answer",
	"does not ask after a stop",
	"retry under a new id",
	"lease without sync",
	"late ack believed",
	"follows a step forward",
	"follows a step back",
	"purge reaches what comes later",
	"bulk cancel retires early",
	"ids retire early",
	"own commit is a fence",
	"409 is a failed condition",
	"short answer trusted",
	"checksum not compared",
	"upload not verified",
	"commits an old upload",
	"compaction skips the first",
	"idle owner does not look",
	"filter believed too early",
	"witness not written",
	"due rounded down",
	"given back and still leased",
	"restart forgets the last attempt",
	"one lane takes all the room",
	"no slow start after an outage",
	"backlog before fresh",
	"lets go of a lane in use",
	"receipts of any cluster",
	"forgets deliveries before a crash",
	"restore forgets pauses",
	"id stored after its message",
	"window ends with its timer",
	"reserved ids unissued",
	"load window from the clock",
	"schedule does not move on",
	"firing made twice",
	"nothing is missed",
	"cursor before its rows",
	"cursor before short waits",
	"restore forgets cursors",
	"start without a witness",
	"limit forgotten",
	"cursor passes what failed",
	"bulk cancel covers schedules",
	"max_wait bounds nothing",
	"gap in a ledger passed",
	"delivers before the ledger was read",
	"ledger not asked",
	"position passes unknown outcomes",
	"unheard ids not remembered",
	"group instead of cursor",
	"poison passed uncopied",
	"refused passed before its copy",
	"acknowledged before the bucket",
	"takes after revoke",
	"aborted requests read",
	"takes before a ledger was read",
	"ends what was recalled",
	"changes what a broker holds",
	"held counts as delivered",
	"key before locator",
	"one look",
	"early hit counts",
	"mirror not awaited",
	"roll as a new message",
}
