// SPDX-License-Identifier: Apache-2.0

package exam

import "slices"

// Faults are what was done to the product from outside, and how its guards failed without the
// protection.
func Faults() []Fault {
	return slices.Concat(faults1(), faults2(), faults3())
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
	}
}
