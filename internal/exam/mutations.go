// SPDX-License-Identifier: Apache-2.0

package exam

import "slices"

// Mutations are the mistakes that were made by hand.
func Mutations() []Mutation {
	return slices.Concat(
		mutations1(),
		mutations2(),
		mutations3(),
		mutations4(),
		mutations5(),
		mutations6(),
	)
}

func mutations1() []Mutation {
	return []Mutation{
		{
			Rules: "S7", File: "scheduler/core/flight.go",
			What:  `EvReleased: "|| f.parking" taken out`,
			Guard: "scheduler/core TestReleaseWhileParking",
			Said:  `again.Claims[0].Parked is false: "Should be true"`,
		},
		{
			Rules: "V2", File: "internal/server/access/view.go",
			What: `'errors.Is(err, delay.ErrNotFound) || err == nil && ` +
				`!v.may.Has(info.Target)' became 'errors.Is(err, delay.ErrNotFound)'`,
			Guard: "internal/server TestMatrix",
			Said: `Not equal: GET /v1/messages/{id} about foreign as "read-limited": 200 ` +
				`{"id":"foreign","state":"scheduled"`,
		},
		{
			Rules: "V2", File: "internal/server/access/view.go",
			What: `'errors.Is(err, delay.ErrNotFound) || err == nil && ` +
				`!v.may.Has(info.Target)' became 'err == nil && !v.may.Has(info.Target)'`,
			Guard: "internal/server TestMatrix",
			Said: `Not equal: GET /v1/messages/{id} about foreign as "read-limited": 404 ` +
				`{"code":"not_found","message":"mess`,
		},
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What:  `'f.Only = v.may return v.shard.List(' became 'return v.shard.List('`,
			Guard: "internal/server TestMatrix",
			Said: `"{\"messages\":[{\"id\":\"own\",\"state\":\"scheduled\",\"due\":\"2027-0` +
				`1-15T08:00:00.000Z\",\"due_ms\":1800000000000,`,
		},
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What: `'f.Only = v.may return v.shard.DeadLetters(' became 'return ` +
				`v.shard.DeadLetters('`,
			Guard: "internal/server TestMatrix",
			Said: `"{\"messages\":[{\"id\":\"own-dead\",\"state\":\"dead\",\"due\":\"2027-0` +
				`1-15T08:00:00.000Z\",\"due_ms\":1800000000000,`,
		},
	}
}

func mutations2() []Mutation {
	return []Mutation{
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What:  `'f.Only = v.may return v.shard.Count(' became 'return v.shard.Count('`,
			Guard: "internal/server TestMatrix",
			Said: `Expect "{"count":2} GET /v1/pending/count about own as "read-limited": ` +
				`200 {"count":2}`,
		},
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What: `'f.Only = v.may return v.shard.Histogram(' became 'return ` +
				`v.shard.Histogram('`,
			Guard: "internal/server TestMatrix",
			Said: `Expect "{"buckets":[{"from":"2027-01-15T08:00:00.000Z","from_ms":1800000` +
				`000000,"count":2,"bytes":0,"hot":0,"warm":0,"c`,
		},
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What:  `'if !v.mayPull(queue) {' became 'if false {'`,
			Guard: "internal/server TestMatrix",
			Said: `Should be empty, but was [pull pull:foreign] POST ` +
				`/v1/queues/{queue}/pull about foreign as "send-limited"`,
		},
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What:  `'if !v.mayPull(req.Queue) {' became 'if false {'`,
			Guard: "internal/server TestMatrix",
			Said: `Should be empty, but was [settle pull:foreign] POST ` +
				`/v1/queues/{queue}/ack about foreign as "send-limited`,
		},
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What:  `'case !v.may.Has(f.Target):' became 'case false:'`,
			Guard: "internal/server TestMatrix",
			Said: `Should be empty, but was [purge pull:foreign] POST /v1/pending/purge ` +
				`about foreign as "admin-limited": 20`,
		},
	}
}

func mutations3() []Mutation {
	return []Mutation{
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What:  `'if !v.may.Has(target) {' became 'if false {'`,
			Guard: "internal/server TestMatrix",
			Said: `Should be empty, but was [pause pull:foreign] POST /v1/targets/pause ` +
				`about foreign as "admin-limited": 20`,
		},
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What:  `'d.Replace = has' became '_ = has'`,
			Guard: "internal/server TestLimitedReplace",
			Said: `Not equal: foreign: {"id":"foreign","due":"2027-01-15T08:00:00.001Z","du` +
				`e_ms":1800000000001,"dura`,
		},
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What:  `'if !v.may.Has(drafts[i].Target) {' became 'if false {'`,
			Guard: "internal/server TestMatrix",
			Said: `Should be empty, but was [accept pull:foreign] POST /v1/messages about ` +
				`foreign as "send-limited": 200 {"i`,
		},
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What:  `'if err == nil && !has { return noMessage(id) }' became '_ = has'`,
			Guard: "internal/server TestMatrix",
			Said: `Should be empty, but was [dead letter pull:foreign] POST ` +
				`/v1/dead-letters/{id}/retry about foreign as "ad`,
		},
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What:  `'return !v.may.Has(t.Target)' became 'return false'`,
			Guard: "internal/server TestMatrix",
			Said: `"{\"targets\":[{\"target\":\"pull:own\",\"in_flight\":0,\"backlog\":0,\"` +
				`rate\":0,\"last_error\":\"\",\"paused\":false,`,
		},
	}
}

func mutations4() []Mutation {
	return []Mutation{
		{
			Rules: "V1", File: "internal/server/access/gate.go",
			What:  `'case rule.Reach == Whole && caller.Targets != nil:' became 'case false:'`,
			Guard: "internal/server TestMatrix",
			Said: `Not equal: GET /v1/status about own as "read-limited": 200 ` +
				`{"version":"","cluster":"","shard":0,"epoch":0`,
		},
		{
			Rules: "V1", File: "internal/server/routes.go",
			What: `'Scope: access.Read, Reach: access.Whole' became 'Scope: access.Read, ` +
				`Reach: access.Targets'`,
			Guard: "internal/server TestMatrix",
			Said: `Not equal: GET /v1/status about own as "read-limited": 200 ` +
				`{"version":"","cluster":"","shard":0,"epoch":0`,
		},
		{
			Rules: "V6", File: "internal/server/routes.go",
			What: `'{"POST", "/v1/pending/purge", mayKeep,' became '{"POST", ` +
				`"/v1/pending/purge", access.Rule{},'`,
			Guard: "internal/server TestMatrix",
			Said:  `Should not be zero, but was public POST /v1/pending/purge has no scope`,
		},
		{
			Rules: "V6", File: "internal/server/queues.go",
			What:  `'n, err := c.shard.Count(' became 'n, err := s.shard.Count('`,
			Guard: "internal/server TestMatrix",
			Said: `Expect "{"count":2} GET /v1/pending/count about own as "read-limited": ` +
				`200 {"count":2}`,
		},
		{
			Rules: "V6", File: "internal/server/rpc_read.go",
			What:  `'pageOf(ctx, callOf(ctx).shard.List' became 'pageOf(ctx, r.s.shard.List'`,
			Guard: "internal/server TestMatrix",
			Said: `"{\"messages\":[{\"id\":\"own\",\"state\":\"STATE_SCHEDULED\",\"dueMs\":` +
				`\"1800000000000\",\"tier\":\"TIER_HOT\",\"targ`,
		},
	}
}

func mutations5() []Mutation {
	return []Mutation{
		{
			Rules: "V1", File: "internal/server/access/view.go",
			What:  `'if !has { results' became 'if !has && false { results'`,
			Guard: "internal/server TestMatrix",
			Said: `Should be empty, but was [change pull:foreign] DELETE /v1/messages/{id} ` +
				`about foreign as "send-limited":`,
		},
		{
			Rules: "V6", File: "internal/server/routes.go",
			What: `'{"POST", "/v1/pending/purge", mayKeep,' became '{"POST", ` +
				`"/v1/pending/purge", access.Rule{},'`,
			Guard: "internal/server TestMatrix",
			Said:  `Should not be zero, but was public POST /v1/pending/purge has no scope`,
		},
		{
			Rules: "V6", File: "internal/server/queues.go",
			What:  `'n, err := c.shard.Count(' became 'n, err := s.shard.Count('`,
			Guard: "internal/server TestMatrix",
			Said: `Expect "{"count":2} GET /v1/pending/count about own as "read-limited": ` +
				`200 {"count":2}`,
		},
		{
			Rules: "R21", File: "scheduler/clock/clock.go",
			What:  `Now: '&& !g.mu.back' put back into the condition of a hold`,
			Guard: "scheduler/clock TestForwardAfterBackward",
			Said:  `expected held true, was false`,
		},
		{
			Rules: "R3 S2", File: "scheduler/cut/missed.go",
			What:  `Missed: call of unmarked taken out`,
			Guard: "scheduler/cut TestMovedIsNotMissed",
			Said:  `Done holds the moved and the cancelled key`,
		},
	}
}

func mutations6() []Mutation {
	return []Mutation{
		{
			Rules: "V6", File: "internal/server/rpc_read.go",
			What:  `'pageOf(ctx, callOf(ctx).shard.List' became 'pageOf(ctx, r.s.shard.List'`,
			Guard: "internal/server TestMatrix",
			Said: `"{\"messages\":[{\"id\":\"own\", \"state\":\"STATE_SCHEDULED\", ` +
				`\"dueMs\":\"1800000000000\", \"tier\":\"TIER_HOT\", \`,
		},
		{
			Rules: "V9", File: "internal/server/admit.go",
			What: `'if c.change.Action == "" { return }' became 'if c.change.Action == "" ` +
				`|| err != nil { return }'`,
			Guard: "internal/server TestAudit",
			Said:  `Not equal: POST /v1/pending/purge as ops`,
		},
	}
}
