// SPDX-License-Identifier: Apache-2.0

package exam

import "slices"

// Faults are what was done to the product from outside, and how its guards failed without the
// protection.
func Faults() []Fault {
	return slices.Concat(faults1(), faults2(), faults3(), faults4(), faults5(), faults6(), faults7(), faults8(), faults9(), faults10())
}

func faults1() []Fault {
	return []Fault{
		{
			IDs: `DISK-1, S2, S3, REC-2..5, L2, L3, L5`,
			Guards: []Guard{
				"localstore TestCrashClones",
				"localstore TestCrashAtEverySync",
			},
			Counts: `make crash: 10,036 crashes, 3,369 nested, up to 5 deep`,
			Said: `syncs of the log taken out: "batches 1 to 1 were acknowledged and are ` +
				`missing"; syncs of the witness: "witness of 4096 bytes, want 8192"; ` +
				`stamp of the filter unread: "the filter denies id-19"`,
		},
		{
			IDs: `DISK-2, L2`,
			Guards: []Guard{
				"localstore TestTornLog",
			},
			Said: `comparison with the witness taken out: 143 batches opened where 144 ` +
				`were acknowledged`,
		},
		{
			IDs: `DISK-3, L2, L6`,
			Guards: []Guard{
				"localstore TestDamage",
				"localstore TestFirstLog",
				"localstore TestMissingHalf",
			},
			Counts: `1,620 opens by make crash: 142 detected on read, 912 harmless, 566 ` +
				`refused, 0 silent`,
			Said: `comparison with the witness taken out: SILENT LOSS after a flip at the ` +
				`end of the log`,
		},
		{
			IDs: `DISK-4`,
			Guards: []Guard{
				"localstore TestDiskErrors",
				"localstore TestLogFailure",
				"localstore/diskfs TestNothingAfterTheEnd",
			},
			Counts: `2,329 errors by make crash`,
			Said: `Fatal not told: the store does not open afterwards; the look at the ` +
				`failure after the sync taken out: an acknowledged batch is missing; ` +
				`writes after the end let through: red`,
		},
		{
			IDs: `DISK-6`,
			Guards: []Guard{
				"localstore/diskfs TestStalls",
				"localstore TestStalledDisk",
				"localstore TestStalledDiskAtOpen",
				"internal/daemon TestAwait",
			},
			Said: `the timer taken out: nobody is told; the wait of the daemon unbounded: ` +
				`it hangs for ever`,
		},
		{
			IDs: `DISK-8`,
			Guards: []Guard{
				"localstore TestCrashClones",
				"localstore TestCrashAtEverySync",
			},
			Said: `sync before a marker taken out: could not open manifest file ` +
				`"MANIFEST-000012", does not exist`,
		},
	}
}

func faults2() []Fault {
	return []Fault{
		{
			IDs: `flush retries`,
			Guards: []Guard{
				"localstore TestFlushFails",
				"localstore TestFlushFailsAtOpen",
			},
			Said: `the bound taken out: never told; the pause taken out: spins for ever; ` +
				`an empty flush counted: not zero`,
		},
		{
			IDs: `UPG-3 store`,
			Guards: []Guard{
				"localstore TestNewerStore",
				"localstore TestGoldenStore",
			},
			Said: `one slot of a newer version overlooked: opens; Pebble's newer format ` +
				`unnamed: red`,
		},
		{
			IDs: `UPG-3 bucket`,
			Guards: []Guard{
				"tiered TestNewerBucket",
			},
		},
		{
			IDs: `S3-4, O3, T5`,
			Guards: []Guard{
				"tiered TestLyingStore",
				"tiered TestStaleTags",
				"tiered TestReadsAlarm",
				"tiered/objstore/s3 TestWrongBodies",
			},
			Counts: `10,000 lies`,
			Said: `checksum of blocks, of the manifest, of the footer: each red (wrong ` +
				`rows, wrong manifest, a lie believed)`,
		},
		{
			IDs: `S3-5`,
			Guards: []Guard{
				"tiered TestObjectDeletedByHand",
				"tiered TestVerifyBesideTheOwner",
			},
		},
		{
			IDs: `S3-6, S3-7`,
			Guards: []Guard{
				"tiered TestConflictsOfOwnWrites",
				"tiered TestLostAnswerOfACommit",
				"tiered/manifest TestCommitOutcomes",
			},
		},
	}
}

func faults3() []Fault {
	return []Fault{
		{
			IDs: `S3-9`,
			Guards: []Guard{
				"tiered TestRefusedMidFlight",
				"tiered/objstore/s3 TestAnswers",
			},
		},
		{
			IDs: `S3-10`,
			Guards: []Guard{
				"tiered TestRefusedMidFlight",
				"scheduler TestTroubleIsToldOnce",
			},
		},
		{
			IDs: `S3-12`,
			Guards: []Guard{
				"tiered/objstore/probe TestPersonalities",
				"tiered/objstore/probe TestUnfit",
				"tiered/objstore/probe TestFit",
			},
		},
		{
			IDs: `damage told once`,
			Guards: []Guard{
				"localstore TestDamagedBlock",
			},
		},
		{
			IDs: `S1 R21`,
			Guards: []Guard{
				"integration/torture TestTorture",
				"scheduler/clock TestForwardAfterBackward",
				"integration/torture/history TestRulesSee",
				"integration/torture/history TestBelieved",
			},
			Said: `red when a step forward is followed while time stands still (seed 7: ` +
				`250 messages up to 69 h early); TestForwardAfterBackward red with the ` +
				`old condition`,
		},
		{
			IDs: `S2 S4 S5 S7`,
			Guards: []Guard{
				"integration/torture TestTorture",
			},
			Said: `exam build: ClaimUnasked, BatchAck, MarksForgotten found through the ` +
				`API alone (TestFindsPlanted)`,
		},
	}
}

func faults4() []Fault {
	return []Fault{
		{
			IDs: `S2 R3`,
			Guards: []Guard{
				"scheduler/cut TestMovedIsNotMissed",
			},
			Said: `red without unmarked(): moved and cancelled keys are marked delivered; ` +
				`the torture lost a tier message`,
		},
		{
			IDs: `S6`,
			Guards: []Guard{
				"integration/torture/history TestBound",
				"integration/torture/history TestRulesSee",
			},
			Said: `red on planted histories: a repetition without an incident, across ` +
				`SIGTERM, one more than the bound`,
		},
		{
			IDs: `S7 R9`,
			Guards: []Guard{
				"integration/torture TestTorture",
			},
			Said: `red on planted histories; BatchAck found in the real process`,
		},
		{
			IDs: `S10`,
			Guards: []Guard{
				"integration/torture TestTorture",
			},
			Said: `red on planted histories; seed 1002 showed pending 1 of a lost message`,
		},
		{
			IDs: `PROC-9 PROC-TERM PROC-STOP DISK-5 S3-1..3 S3-6 REC-2 FENCE-1`,
			Guards: []Guard{
				"integration/torture TestTorture",
			},
		},
		{
			IDs: `X1`,
			Guards: []Guard{
				"integration/torture TestOrdinaryBuild",
			},
			Said: `red when the clock file is compiled without its tag`,
		},
	}
}

func faults5() []Fault {
	return []Fault{
		{
			IDs: `SEC-authz`,
			Guards: []Guard{
				"internal/server TestMatrix",
				"internal/server TestLimitedReplace",
			},
			Said: `21 mutations of access/view.go, gate.go, routes.go, handlers: red each ` +
				`("about foreign as ..." / "Should be empty")`,
		},
		{
			IDs: `SEC-authn`,
			Guards: []Guard{
				"internal/server/access TestBadTokens",
				"internal/server/access TestDenyByDefault",
				"internal/server/access TestCertificates",
			},
		},
		{
			IDs: `SEC-audit`,
			Guards: []Guard{
				"internal/server TestAudit",
				"internal/server/audit TestFile",
				"internal/server/audit TestReopenBesideWrites",
				"internal/server/audit FuzzWrite",
			},
		},
		{
			IDs: `SEC-tls`,
			Guards: []Guard{
				"internal/daemon/certs TestBroken",
				"internal/daemon/certs TestClientsRefuse",
				"internal/daemon/certs TestClientCertificates",
				"internal/daemon/certs TestExchange",
			},
		},
		{
			IDs: `SEC-reload`,
			Guards: []Guard{
				"internal/daemon TestReloadTokens",
				"internal/daemon TestReloadSignal",
				"internal/daemon TestReloadCertificate",
			},
		},
		{
			IDs: `SEC-open-address`,
			Guards: []Guard{
				"internal/config TestPublicAddresses",
				"internal/daemon TestPrivate",
			},
		},
	}
}

func faults6() []Fault {
	return []Fault{
		{
			IDs: `SEC-ssrf`,
			Guards: []Guard{
				"integration TestHostileTargets",
			},
			Said: `canary on all addresses sees 0 connections`,
		},
		{
			IDs: `SEC-hmac`,
			Guards: []Guard{
				"broker/webhook TestRotation",
				"integration TestWebhookSigningRotation",
			},
		},
		{
			IDs: `SEC-secrets`,
			Guards: []Guard{
				"integration TestSecretsStaySecret",
				"internal/config TestSecretNeverShows",
			},
		},
		{
			IDs: `SEC-dos`,
			Guards: []Guard{
				"integration TestSlowAndLargeRequests",
			},
		},
		{
			IDs: `SEC-patterns`,
			Guards: []Guard{
				"delay TestTargetPattern",
				"delay FuzzTargetPattern",
			},
		},
		{
			IDs: `S4`,
			Guards: []Guard{
				"scheduler TestDuplicateCause01SendRetry",
				"scheduler TestSameContentFieldByField",
				"scheduler TestOneIDManyTimes",
			},
			Said: `IDsUnchecked: "Should be zero, but was 2"; ContentUnread: no already ` +
				`exists; BatchUnseen: duplicate false`,
		},
	}
}

func faults7() []Fault {
	return []Fault{
		{
			IDs: `S4`,
			Guards: []Guard{
				"scheduler TestDedupeWindowToTheMillisecond",
			},
			Counts: `24 cases: 4 ends x crash, restart, disk, clock steps`,
			Said:   `WindowByTimer: already exists at the end of the window`,
		},
		{
			IDs: `S4`,
			Guards: []Guard{
				"scheduler TestAcceptCrashesAtEachStep",
			},
			Said: `IDStoredLater: 3 rows, expected 2`,
		},
		{
			IDs: `S4`,
			Guards: []Guard{
				"scheduler TestReplaceInEveryState",
			},
			Counts: `13 states x nothing, crash, disk`,
			Said:   `MoveUnmarked: old and new content delivered`,
		},
		{
			IDs: `S4`,
			Guards: []Guard{
				"scheduler TestReservedIDsAreReal",
				"scheduler TestIDsThroughTheTier",
			},
			Said: `ReservedUnissued: forged id accepted; IDsAnsweredEarly: no unavailable`,
		},
		{
			IDs: `S6`,
			Guards: []Guard{
				"scheduler TestDuplicateCause03ProgressOnATimer",
			},
			Said: `AcksOnTimer: 50 acked messages came back`,
		},
		{
			IDs: `S6`,
			Guards: []Guard{
				"scheduler TestDuplicateCause10CleanShutdown",
				"integration TestDuplicateCleanShutdown",
			},
			Said: `DrainUnsettled: taken twice (both)`,
		},
	}
}

func faults8() []Fault {
	return []Fault{
		{
			IDs: `S6`,
			Guards: []Guard{
				"scheduler TestDuplicateCause12UnknownOutcome",
			},
			Said: `UnknownSpreads: neighbours came twice`,
		},
		{
			IDs: `S6`,
			Guards: []Guard{
				"scheduler TestDeliveredBeforeCrashIsMarked",
			},
			Said: `DoneLost: 50 deliveries of before the last commit came back`,
		},
		{
			IDs: `S7`,
			Guards: []Guard{
				"scheduler TestDuplicateCause02HandlerFailureInABatch",
			},
			Said: `NackWholeLease: 6 returned instead of 2`,
		},
		{
			IDs: `S7`,
			Guards: []Guard{
				"scheduler TestDuplicateCause04Restart",
				"integration TestDuplicateRebalance",
			},
			Said: `LeasesForgotten: leased messages handed to another`,
		},
		{
			IDs: `S7`,
			Guards: []Guard{
				"scheduler TestDuplicateCause06Rebalance",
			},
			Said: `PullTakesOver: 27 messages pulled instead of 10`,
		},
		{
			IDs: `S7`,
			Guards: []Guard{
				"scheduler TestDuplicateCause08AckAndCheckpoint",
			},
			Counts: `7 orders x 2`,
			Said:   `AckWithLease: 5 returned instead of 1`,
		},
	}
}

func faults9() []Fault {
	return []Fault{
		{
			IDs: `S7`,
			Guards: []Guard{
				"scheduler TestDuplicateCause09PartialBatch",
			},
			Said: `BatchAck: 1 attempt instead of 2`,
		},
		{
			IDs: `S7`,
			Guards: []Guard{
				"scheduler TestNackedDoesNotWaitForItsLease",
				"scheduler TestLastAttemptSurvivesCrash",
				"scheduler TestLeaseRecords",
				"scheduler TestHolesOverRestart",
			},
			Said: `GivenBackLeased: nothing came at its time; LastForgotten: scheduled (or ` +
				`claimed) instead of dead`,
		},
		{
			IDs: `S7`,
			Guards: []Guard{
				"scheduler/core TestReleaseWhileParking",
			},
			Said: `"|| f.parking" out: claim is not of a parked row`,
		},
		{
			IDs: `R9`,
			Guards: []Guard{
				"scheduler TestDuplicateCause07SlowHandler",
				"scheduler TestDuplicateCause13HiddenFailedAck",
			},
			Said: `ReceiptUnread: late ack ACKED; RefusalHidden: ACKED instead of SUPERSEDED`,
		},
		{
			IDs: `R9`,
			Guards: []Guard{
				"scheduler TestReceiptOfAnotherCluster",
				"integration TestLeaseLimits",
			},
			Said: `ClusterUnread: ACKED instead of NOT_FOUND`,
		},
		{
			IDs: `R9`,
			Guards: []Guard{
				"internal/ctl TestPullAckRefused",
				"integration TestDuplicateHiddenFailedAck",
			},
			Said: `RefusalHidden: exit status 0 instead of 5`,
		},
	}
}

func faults10() []Fault {
	return []Fault{
		{
			IDs: `R11`,
			Guards: []Guard{
				"scheduler TestDuplicateCause11TwoDeliverers",
			},
			Said: `NoPause: new owner delivered at 5.040 s, old one until 5.910 s`,
		},
		{
			IDs: `R12`,
			Guards: []Guard{
				"scheduler TestDuplicateCause05OwnershipChange",
			},
			Said: `DoneUnmarked: 200 deliveries came back`,
		},
		{
			IDs: `R5`,
			Guards: []Guard{
				"scheduler TestPauseSurvivesDiskLoss",
			},
			Said: `PausesForgotten: paused targets delivered after the loss of the disk`,
		},
	}
}
