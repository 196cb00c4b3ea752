// SPDX-License-Identifier: Apache-2.0

package exam

import (
	"slices"

	"github.com/cicadamq/cicada/internal/planted"
)

// Mistakes are all that can be planted, in the order of planted.Bug.
func Mistakes() []Mistake {
	var all []Mistake
	all = append(all, firstMistakes()...)
	all = append(all, tierMistakes()...)
	all = append(all, causeMistakes()...)
	all = append(all, coreMistakes()...)
	all = append(all, commitMistakes()...)
	all = append(all, recoveryMistakes()...)
	all = append(all, formatMistakes()...)
	all = append(all, lateMistakes()...)
	slices.SortFunc(all, func(a, b Mistake) int { return int(a.Bug) - int(b.Bug) })
	return all
}

func mistake(bug planted.Bug, rules string, guards ...Guard) Mistake {
	return Mistake{Bug: bug, Rules: rules, Guards: guards}
}

func firstMistakes() []Mistake {
	return []Mistake{
		mistake(planted.AckWithoutSync, "S2 S3 R13",
			"scheduler/commit TestRepliesAfterSync",
			"sim",
		),
		mistake(planted.DropBeforeNoted, "R1 S2", "sim", "scheduler/commit TestDropAfterUpload"),
		mistake(planted.IgnoreHorizon, "R8 S5",
			"sim",
			"scheduler/commit TestCancelAsksTheHorizon",
		),
		mistake(planted.CancelUnmarked, "R1 R13 S5", "sim:purges"),
		mistake(planted.WatermarkTooHigh, "R2 S2", "sim"),
		mistake(planted.OutcomeMisplaced, "S7 S10", "sim"),
		mistake(planted.MarksForgotten, "R1 S5", "sim"),
		mistake(planted.BatchAck, "S7 D9", "sim", "scheduler TestDuplicateCause09PartialBatch"),
		mistake(planted.EarlyByOne, "S1", "sim"),
		mistake(planted.NonceForgotten, "R10", "sim"),
		mistake(planted.BuffersTrusted, "R5", "sim"),
		mistake(planted.PredicateForgotten, "R6 S5", "sim:purges"),
		mistake(planted.PredicateCountedTwice, "R15 S10", "sim:purges"),
	}
}

func tierMistakes() []Mistake {
	return []Mistake{
		mistake(planted.DeleteAtOnce, "R6", "sim:gc"),
		mistake(planted.DeleteUnread, "R6 R11", "sim:gc"),
		mistake(planted.SweepUnread, "R22", "sim:gc"),
		mistake(planted.SweepYoung, "R22", "sim:gc"),
		mistake(planted.InputsFirst, "R1 S2", "sim:gc"),
		mistake(planted.CompactOverdue, "R5 S2", "sim:gc"),
		mistake(planted.MarksApplied, "R6", "sim:gc"),
		mistake(planted.KeptBehind, "R5", "sim:gc"),
		mistake(planted.MarkTooNew, "R5", "scheduler/cut TestWatermarkIsOfTheCut"),
		mistake(planted.CollectNothing, "R6", "sim:gc"),
		mistake(planted.NoPause, "R11 D11",
			"sim:owners",
			"scheduler TestDuplicateCause11TwoDeliverers",
		),
		mistake(planted.OldDiskBelieved, "R10",
			"sim:owners",
			"scheduler/recovery TestWhichDiskIsBelieved",
		),
		mistake(planted.ManifestRecreated, "R10", "sim:owners"),
		mistake(planted.FencedGoesOn, "R11", "sim:owners"),
		mistake(planted.TakenUnread, "R10", "sim:owners"),
		mistake(planted.ParkedMissed, "R5 S2", "scheduler TestParkedWhileReadingBack"),
	}
}

// causeMistakes are one for each cause of duplicates.
func causeMistakes() []Mistake {
	return []Mistake{
		mistake(planted.IDsUnchecked, "S4 D1", "scheduler TestDuplicateCause01SendRetry"),
		mistake(planted.NackWholeLease, "S7 D2",
			"scheduler TestDuplicateCause02HandlerFailureInABatch"),
		mistake(planted.AcksOnTimer, "S6 R9 D3",
			"scheduler TestDuplicateCause03ProgressOnATimer"),
		mistake(planted.LeasesForgotten, "S7 R8 D4", "scheduler TestDuplicateCause04Restart"),
		mistake(planted.DoneUnmarked, "R12 S6 D5",
			"scheduler TestDuplicateCause05OwnershipChange"),
		mistake(planted.PullTakesOver, "S7 D6", "scheduler TestDuplicateCause06Rebalance"),
		mistake(planted.ReceiptUnread, "R9 D7", "scheduler TestDuplicateCause07SlowHandler"),
		mistake(planted.AckWithLease, "S7 D8", "scheduler TestDuplicateCause08AckAndCheckpoint"),
		mistake(planted.DrainUnsettled, "S6 D10", "scheduler TestDuplicateCause10CleanShutdown"),
		mistake(planted.UnknownSpreads, "S7 D12", "scheduler TestDuplicateCause12UnknownOutcome"),
		mistake(planted.RefusalHidden, "R9 D13",
			"scheduler TestDuplicateCause13HiddenFailedAck"),
	}
}

// coreMistakes are of loading, claiming and settling.
func coreMistakes() []Mistake {
	return []Mistake{
		mistake(planted.HorizonNotAwaited, "R8 S5", "scheduler/core TestModel"),
		mistake(planted.CursorNotAwaited, "R8 S5", "scheduler/core TestCursorFirst"),
		mistake(planted.CursorForgotten, "R8 S5", "scheduler/commit TestCancelAsksTheCursor"),
		mistake(planted.LoadUncut, "R7", "sim"),
		mistake(planted.LoadMissesFresh, "R7 S2", "scheduler/core TestLoadHasACut"),
		mistake(planted.LoadPastBoundary, "R1 R7", "scheduler/core TestLoadsStopAtTheBoundary"),
		mistake(planted.FinishedLoaded, "R7 S6", "scheduler/core TestLoadLeavesOutTheFinished"),
		mistake(planted.WithdrawnLoaded, "R7 S5", "scheduler/core TestModel"),
		mistake(planted.EpochUnread, "R9", "scheduler/core TestReceiptNamesTheEpoch"),
		mistake(planted.ExpiredInHand, "S6", "scheduler/core TestExpiryWaitsForTheLease"),
		mistake(planted.AttemptsForgotten, "S7", "scheduler/core TestAttemptsAreWrittenDown"),
		mistake(planted.LeaseGoesFirst, "R8 S7", "scheduler/core TestLeaseGoesLast"),
		mistake(planted.ReplayTooHigh, "R1 S2",
			"sim",
			"scheduler/core TestStartReadsFromTheWatermark",
		),
	}
}

// commitMistakes are of the committer, and of what waits for it.
func commitMistakes() []Mistake {
	return []Mistake{
		mistake(planted.KeyBehindWatermark, "R2 S2",
			"sim",
			"scheduler/commit TestKeysStayAboveTheWatermark",
		),
		mistake(planted.DoneBeforeSent, "S2 S6", "sim"),
		mistake(planted.IDsAnsweredEarly, "R14 S4", "scheduler/commit TestIDsWaitForTheRestore"),
		mistake(planted.ContentUnread, "S4", "sim"),
		mistake(planted.DuplicateUnwaited, "R13 S3", "sim"),
		mistake(planted.AttemptUnasked, "S5 R8", "scheduler/commit TestCancelBetweenAttempts"),
		mistake(planted.ClaimUnasked, "S5", "sim", "scheduler/commit TestCancelAsks"),
		mistake(planted.LostClaimsForgotten, "R12 S5", "scheduler/commit TestCancelAfterLoss"),
		mistake(planted.MoveUnmarked, "R3", "sim", "scheduler/commit TestMoveLeavesAMark"),
		mistake(planted.OutcomeForgotten, "R14 S5",
			"sim",
			"scheduler/commit TestCancelIsRemembered",
		),
		mistake(planted.ParkedUnclaimed, "R8 S5",
			"sim",
			"scheduler/commit TestParkedSaysThatItWasClaimed",
		),
		mistake(planted.DeadUncounted, "S10", "sim", "scheduler/commit TestDeadIsCounted"),
		mistake(planted.AcceptedUnseen, "R2 S2",
			"scheduler/commit TestWatermarkWaitsForTheAccepted",
		),
		mistake(planted.UploadBeforeSync, "R4", "sim", "scheduler/commit TestUploadAfterSync"),
		mistake(planted.CancelWithoutSync, "S5 R13", "scheduler/commit TestAnswersAfterSync"),
		mistake(planted.PullAckWithoutSync, "R9 S6", "scheduler/commit TestAnswersAfterSync"),
		mistake(planted.BatchUnseen, "R14 S4", "sim", "scheduler/commit TestIDsOfOneBatch"),
		mistake(planted.DropBelowBoundary, "R1",
			"scheduler/commit TestDropStaysAboveTheBoundary",
		),
		mistake(planted.BulkRowsPassed, "R6", "scheduler TestBulkCancelCompletedAfterCrash"),
		mistake(planted.ReusedForgotten, "S4 R14",
			"scheduler/commit TestIDUsedAgainIsRemembered",
		),
		mistake(planted.MarkBeforeRow, "R3 S2", "scheduler/cut TestMarkWaitsForItsRow"),
	}
}

// recoveryMistakes are of starts, of owners, and of answers that wait for the bucket.
func recoveryMistakes() []Mistake {
	return []Mistake{
		mistake(planted.PauseCutShort, "R11",
			"scheduler/recovery TestTakeoverInDoubt",
			"scheduler TestTakeoverPauseSurvivesCrash",
		),
		mistake(planted.EpochReused, "R4 R3", "scheduler/recovery TestEveryStartTakesAnEpoch"),
		mistake(planted.SeqReused, "R4 R3",
			"scheduler/recovery TestFirstSeq",
			"scheduler TestStartWithoutBucket",
		),
		mistake(planted.HorizonNotTaken, "R12 S5", "scheduler/recovery TestTakeoverInDoubt"),
		mistake(planted.HalfRestored, "R10", "scheduler/recovery TestWhichDiskIsBelieved"),
		mistake(planted.OwnCommitDisowned, "R10", "scheduler/recovery TestWhichDiskIsBelieved"),
		mistake(planted.RestoreTooHigh, "R1 S2", "scheduler/recovery TestRestoreIsWhole"),
		mistake(planted.BooksForgotten, "R15 S10", "scheduler/recovery TestRestoreIsWhole"),
		mistake(planted.LostUncounted, "R15 S10", "scheduler/recovery TestRestoreIsWhole"),
		mistake(planted.MarksUnrestored, "R12 R6", "scheduler/recovery TestRestoreIsWhole"),
		mistake(planted.KeptThoughMarked, "R5 S6", "scheduler/recovery TestRestoreIsWhole"),
		mistake(planted.KeptUnrestored, "R5 S2", "scheduler/recovery TestRestoreIsWhole"),
		mistake(planted.TierAnsweredEarly, "R13 S3", "scheduler TestTierDurability"),
		mistake(planted.ChangeUnwaited, "R13 S5", "scheduler TestChangeWaitsForTheBucket"),
		mistake(planted.LandedUnnoted, "R10", "scheduler TestUnansweredCommit"),
		mistake(planted.SilentGoesOn, "R11", "scheduler TestSilentOwnerStops"),
		mistake(planted.AwakeUnasked, "R11", "scheduler TestAwakeOwnerAsks"),
		mistake(planted.RetryRenamed, "S6 R3",
			"scheduler TestDuplicateCause02HandlerFailureInABatch",
		),
		mistake(planted.LeaseUnsynced, "R8 S7", "scheduler TestLeasesWithoutBucket"),
		mistake(planted.LateAckBelieved, "R9", "scheduler TestAckOfAnEarlierAttempt"),
		mistake(planted.StepFollowed, "R21 S1", "scheduler/clock TestForwardStep"),
		mistake(planted.StepBackFollowed, "R21", "scheduler/clock TestBackwardStep"),
	}
}

// formatMistakes are of the tier, of the local store and of the vocabulary.
func formatMistakes() []Mistake {
	return []Mistake{
		mistake(planted.PurgeReachesLater, "R6", "delay TestPredicateCovers"),
		mistake(planted.PredicateRetired, "R6", "tiered/upkeep TestPredicateNeeded"),
		mistake(planted.IDsRetireEarly, "R14 S4", "tiered TestCollectDecides"),
		mistake(planted.OwnWriteFenced, "R11", "tiered/manifest TestCommitOutcomes"),
		mistake(planted.ConflictIsExists, "R11", "tiered/objstore/s3 TestAnswers"),
		mistake(planted.ShortBodyTrusted, "S2", "tiered/objio TestGivesUp"),
		mistake(planted.ChecksumUnread, "S2", "tiered/segment TestReadFindsDamage"),
		mistake(planted.UploadUnverified, "S2 R1", "tiered TestCommitVerifies"),
		mistake(planted.CommittedLate, "R22", "tiered TestCommitTooSlow"),
		mistake(planted.CompactSkipsFirst, "R1 S2",
			"tiered TestCompactFresh",
			"tiered TestModel",
		),
		mistake(planted.IdleOwnerBlind, "R11", "tiered TestCommitEdges"),
		mistake(planted.FilterTrustedEarly, "R14 S4", "localstore TestUnknownFilterDoubts"),
		mistake(planted.WitnessUnwritten, "S2", "localstore TestWitnessFollows"),
		mistake(planted.DueRoundedDown, "S8 S1", "delay TestDueRounding"),
	}
}

// lateMistakes are those that came later.
func lateMistakes() []Mistake {
	return []Mistake{
		mistake(planted.GivenBackLeased, "S7", "scheduler TestNackedDoesNotWaitForItsLease"),
		mistake(planted.LastForgotten, "S7", "scheduler TestLastAttemptSurvivesCrash"),
		mistake(planted.ShareForgotten, "S9", "scheduler/core TestSlowLanes"),
		mistake(planted.SlowStartMissing, "S9", "scheduler/core TestSlowStart"),
		mistake(planted.BacklogFirst, "S9", "scheduler/core TestBacklogInTurn"),
		mistake(planted.LaneForgotten, "S9", "scheduler/core TestIdleLanes"),
		mistake(planted.ClusterUnread, "R9", "scheduler TestReceiptOfAnotherCluster"),
		mistake(planted.DoneLost, "S6 R12", "scheduler TestDeliveredBeforeCrashIsMarked"),
		mistake(planted.PausesForgotten, "S5 S9", "scheduler TestPauseSurvivesDiskLoss"),
		mistake(planted.IDStoredLater, "S4 R14", "scheduler/commit TestIDGoesWithItsMessage"),
		mistake(planted.WindowByTimer, "S4", "scheduler TestDedupeWindowToTheMillisecond"),
		mistake(planted.ReservedUnissued, "S4", "scheduler TestReservedIDsAreReal"),
		mistake(planted.WindowFromNow, "R7 S2", "scheduler/core TestStartReadsFromTheWatermark"),
		mistake(planted.CursorBeforeRows, "R16 S2", "scheduler/cut TestCursorWaits"),
		mistake(planted.ShortUncovered, "R16 S2", "scheduler/cut TestCursorWaits"),
		mistake(planted.CursorsUnrestored, "R16", "scheduler/recovery TestRestoreIsWhole"),
		mistake(planted.CursorPassesFailed, "R17 S2", "scheduler/commit TestTakeStopsAtWhatFailed"),
		mistake(planted.LedgerGapPassed, "R17", "scheduler/ledger TestGapEndsTheShard"),
		mistake(planted.LedgerUnread, "R17 S6", "scheduler/ledger TestNothingBeforeTheLedgerIsRead"),
		mistake(planted.FoundSentAgain, "R17 S6", "scheduler/ledger TestFoundIsNotSentAgain"),
		mistake(planted.UnknownLetGo, "R17 S6", "scheduler/ledger TestPositionWaits"),
		mistake(planted.UnheardForgotten, "R17 S6", "scheduler/ledger TestUnheardIsRemembered"),
		mistake(planted.UnheardTaken, "R17 S5", "scheduler TestCancelOfWhatALedgerLists"),
		mistake(planted.GuardedUnchecked, "R18 S10", "scheduler TestRecalledWhileJudged"),
		mistake(planted.GuardedChanged, "R19", "scheduler TestGuardedBelongsToItsBroker"),
		mistake(planted.HeldReleased, "R18", "scheduler TestGuardedIsJudged"),
		mistake(planted.KeyBeforeLocator, "R18", "broker/rocketmq/guardian TestLocatorFirst"),
		mistake(planted.OneLook, "R18", "broker/rocketmq/guardian TestTwoLooks"),
		mistake(planted.EarlyHitCounts, "R18", "broker/rocketmq/guardian TestEarlierCopies"),
		mistake(planted.MirrorNotAwaited, "R18", "broker/rocketmq/guardian TestMirrorIsAwaited"),
		mistake(planted.RollAsNew, "R18", "broker/rocketmq/guardian TestRolls"),
		mistake(planted.SuccessorLost, "R20", "scheduler TestScheduleFires", "sim:schedules"),
		mistake(planted.FiringRepeated, "R20", "scheduler/commit TestFiringsAreKnownByTheirIDs"),
		mistake(planted.MissedInTime, "R20", "scheduler TestMisfire", "sim:schedules"),
		mistake(planted.LimitForgotten, "S9", "scheduler/core TestLimit", "sim:schedules"),
		mistake(planted.StartUnwitnessed, "R21 S1", "scheduler/clock TestStartWithWitness"),
		mistake(planted.ScheduleCovered, "R6 R20", "delay TestPredicateCovers"),
		mistake(planted.MaxWaitIgnored, "S4", "internal/server TestDebounce"),
		mistake(planted.GroupBelieved, "R16", "broker/kafka/source TestSourceBeginsAtTheCursor"),
		mistake(planted.PoisonPassed, "S2",
			"broker/kafka/source TestSourceCopiesPoisonBeforeTheCursorPasses"),
		mistake(planted.RefusedUncopied, "S2", "scheduler TestSourceModel"),
		mistake(planted.CoverUnasked, "R16 S2", "broker/kafka/source TestSourceCommitsWhatTheTierCovers"),
		mistake(planted.RevokedTakes, "S2", "broker/kafka/source TestSourceGivesUpWhatMovesAway"),
		mistake(planted.AbortedRead, "S2", "broker/kafka/source TestSourceReadsWhatWasCommitted"),
	}
}
