// SPDX-License-Identifier: Apache-2.0

package exam

// Rules are all there are, in the order of the document.
func Rules() []Rule {
	var all []Rule
	all = append(all, truth()...)
	all = append(all, ownership()...)
	all = append(all, promises()...)
	all = append(all, causes()...)
	return append(all, access()...)
}

// truth is the rules of what is true where, and of loading and firing.
func truth() []Rule {
	return []Rule{
		{ID: "R1", Words: "one boundary: below it rows, above it rows and segments less marks"},
		{ID: "R2", Words: "keys never fall behind the watermark"},
		{ID: "R3", Words: "keys are never used again; old mark and new row go together"},
		{ID: "R4", Words: "an epoch for every start; only synced rows are uploaded"},
		{ID: "R5", Words: "what is unfinished after its due is uploaded again"},
		{ID: "R6", Words: "marks and bulk cancels retire last"},
		{ID: "R7", Words: "loads have a cut"},
		{ID: "R8", Words: "claims are written ahead: horizon, cursor, lease", Also: []Guard{
			"scheduler TestClaimHorizon",
		}},
		{ID: "R9", Words: "an ack is answered when it is synced; a receipt is one attempt"},
	}
}

// ownership is the rules of who may write, of answers, of sources and of time.
func ownership() []Rule {
	return []Rule{
		{ID: "R10", Words: "an old disk is not trusted"},
		{ID: "R11", Words: "the owner looks, and a new one waits"},
		{ID: "R12", Words: "after the loss of a disk or a takeover claims are in doubt"},
		{ID: "R13", Words: "a change has the durability of its message"},
		{ID: "R14", Words: "ids of clients are found for the dedupe window"},
		{ID: "R15", Words: "the books are carried over; what is lost is counted"},
		{ID: "R16", Words: "cursors of sources", Also: []Guard{"scheduler TestSourceModel"}},
		{ID: "R17", Words: "identities of exactly once", Also: []Guard{
			"scheduler TestExactlyOnceModel",
		}},
		{ID: "R18", Words: "release of the guardian", Also: []Guard{
			"scheduler TestGuardedModel", "broker/rocketmq/guardian TestModel",
		}},
		{ID: "R19", Words: "guarded entries belong to the broker", Also: []Guard{
			"broker/rocketmq/guardian TestLostToUsers",
		}},
		{ID: "R20", Words: "recurring schedules", Also: []Guard{
			"scheduler TestYear", "scheduler/recur TestEveryInstantOnce",
			"scheduler TestScheduleOutlivesTheDisk",
		}},
		{ID: "R21", Words: "one guarded clock"},
		{ID: "R22", Words: "a segment is committed within an hour or uploaded again"},
	}
}

// promises are those of the contract.
func promises() []Rule {
	return []Rule{
		{ID: "S1", Words: "never early", Also: []Guard{"sim", "scheduler TestPullAtDue"}},
		{ID: "S2", Words: "never lost", Also: []Guard{
			"scheduler TestCrashKeepsAccepted", "localstore TestDamage", "localstore TestCrashClones",
		}},
		{ID: "S3", Words: "durability is named and kept", Also: []Guard{
			"scheduler TestTierDurability",
		}},
		{ID: "S4", Words: "an id names one message", Also: []Guard{
			"scheduler TestClientIDs", "scheduler TestReservedIDs",
		}},
		{ID: "S5", Words: "a cancel is exact"},
		{ID: "S6", Words: "at least once, with a bound for what repeats"},
		{ID: "S7", Words: "each message has its own fate; leases survive a restart"},
		{ID: "S8", Words: "times are read exactly, and rounded up", Also: []Guard{
			"delay TestDueRounding", "delay TestParseDuration",
		}},
		{ID: "S9", Words: "a target that fails delays itself alone", Also: []Guard{"sim"}},
		{ID: "S10", Words: "the books balance", Also: []Guard{"sim"}},
	}
}

// causes are what other systems deliver twice for.
func causes() []Rule {
	return []Rule{
		{ID: "D1", Words: "a send repeated after a lost reply"},
		{ID: "D2", Words: "a handler fails inside a batch"},
		{ID: "D3", Words: "progress saved on a timer"},
		{ID: "D4", Words: "a restart"},
		{ID: "D5", Words: "another owner"},
		{ID: "D6", Words: "a rebalance of consumers"},
		{ID: "D7", Words: "a slow handler outlives its lease"},
		{ID: "D8", Words: "an ack races the checkpoint"},
		{ID: "D9", Words: "a batch fails in part"},
		{ID: "D10", Words: "a clean shutdown"},
		{ID: "D11", Words: "two deliverers"},
		{ID: "D12", Words: "a commit with unknown outcome"},
		{ID: "D13", Words: "a client hides a failed ack"},
	}
}

// access is the invariants of internal/server/access, and of the server that asks it.
func access() []Rule {
	return []Rule{
		{ID: "V1", Words: "nobody reaches a foreign target"},
		{ID: "V2", Words: "a foreign message is answered like one that does not exist"},
		{ID: "V6", Words: "every route and procedure has a rule and goes through it"},
		{ID: "V9", Words: "tokens, certificates, reloads, addresses, secrets and the audit log"},
	}
}
