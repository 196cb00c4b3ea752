// SPDX-License-Identifier: Apache-2.0

// Package brokertest is the conformance suite of broker.Sink: every implementation runs it in one
// line against a receiver that follows AnswerTo.
//
//	brokertest.Run(t, func(t *testing.T) brokertest.Subject { ... })
//
// It checks what the scheduler stands on: one Result per Delivery (B1), outcomes that are known or
// Unknown (B2), one attempt per call (B3), bytes that arrive as they were, and buffers that are the
// caller's again after Deliver.
package brokertest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// Answer is what the receiver of the suite does with a message.
type Answer uint8

// The answers.
const (
	Take   Answer = iota // take it: Delivered
	Later                // do not take it, it may be sent again: Retry
	Never                // do not take it, it must not be sent again: Rejected
	Silent               // take it and never answer: Unknown
)

var prefixes = [...]string{Later: "later-", Never: "never-", Silent: "silent-"}

// AnswerTo is how the suite's receiver answers the message with this id.
func AnswerTo(id delay.ID) Answer {
	for a, prefix := range prefixes {
		if prefix != "" && strings.HasPrefix(string(id), prefix) {
			return Answer(a)
		}
	}
	return Take
}

// Received is a message as the receiver took it.
type Received struct {
	ID      delay.ID
	Attempt uint32
	Body    []byte
	// With Subject.Carries: what the sink did not add itself.
	Key     string
	Headers []delay.Header
}

// Subject is a sink under test and its receiver.
type Subject struct {
	Sink   broker.Sink
	Target delay.Target
	// Received lists what the receiver took, in any order; nil when it cannot be observed.
	Received func() []Received
	// Refuses says that the receiver can answer Later and Never, Hangs that it can be Silent, for
	// which Received is needed.
	Refuses, Hangs bool
	// Carries says that Received tells keys and headers, which arrive as they are; Ordered that it
	// lists the messages of one key in the order in which they arrived.
	Carries, Ordered bool
}

// Run runs the suite. open makes a fresh subject and cleans its receiver up with t.Cleanup; the
// suite closes the sink.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s Subject)
	}{
		{"empty batch", emptyBatch},
		{"every message", everyMessage},
		{"bytes equal", bytesEqual},
		{"keys and headers", keysAndHeaders},
		{"order within a key", orderWithinKey},
		{"neighbours", neighbours},
		{"reasons", reasons},
		{"cancelled before", cancelledBefore},
		{"cancelled during", cancelledDuring},
		{"concurrent", concurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			c.run(t, s)
			require.NoError(t, s.Sink.Close())
		})
	}
}

const (
	patience  = time.Minute // a broken promise costs it, a kept one never
	pollEvery = 5 * time.Millisecond
)

// newBatch is n deliveries to the subject's target.
func (s Subject) newBatch(prefix string, n int) ([]broker.Delivery, []broker.Result) {
	batch := make([]broker.Delivery, n)
	for i := range batch {
		batch[i] = broker.Delivery{
			ID: delay.ID(fmt.Sprintf("%s%d", prefix, i)), Target: s.Target,
			Due: 1_800_000_000_000, FiredAt: 1_800_000_000_007, Attempt: uint32(i + 1),
			RoutingKey: "key", Headers: []delay.Header{{Name: "x-part", Value: "one"}},
			Body: fmt.Appendf(nil, "body of %s%d", prefix, i),
		}
	}
	return batch, make([]broker.Result, n)
}

// deliver runs one Deliver and fails when it does not come back.
func (s Subject) deliver(t *testing.T, batch []broker.Delivery, results []broker.Result) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.Sink.Deliver(ctx, batch, results)
	require.NoError(t, ctx.Err(), "Deliver did not return in time")
}

// byID indexes what arrived and fails when an id arrived twice.
func (s Subject) byID(t *testing.T) map[delay.ID]Received {
	t.Helper()
	out := map[delay.ID]Received{}
	for _, r := range s.Received() {
		_, twice := out[r.ID]
		require.False(t, twice, "%s was sent twice", r.ID)
		out[r.ID] = r
	}
	return out
}

// An empty batch must neither fail nor send.
func emptyBatch(t *testing.T, s Subject) {
	s.deliver(t, nil, nil)
	if s.Received != nil {
		require.Empty(t, s.Received())
	}
}

// A result may be left out or a message sent twice at the edges of the sink's own batches (B1).
func everyMessage(t *testing.T, s Subject) {
	total := 0
	for _, n := range []int{1, 2, 15, 16, 17, 100} {
		batch, results := s.newBatch(fmt.Sprintf("batch%d-", n), n)
		s.deliver(t, batch, results)
		for i, r := range results {
			require.Equal(t, broker.Delivered, r.Outcome, "%d of %d: %s", i, n, r.Reason)
		}
		total += n
		if s.Received == nil {
			continue
		}
		got := s.byID(t)
		require.Len(t, got, total)
		for _, d := range batch {
			require.Equal(t, d.Attempt, got[d.ID].Attempt, "%s", d.ID)
			require.Equal(t, string(d.Body), string(got[d.ID].Body), "%s", d.ID)
		}
	}
}

// A body may be cut, decoded or joined with another: every byte must arrive.
func bytesEqual(t *testing.T, s Subject) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	bodies := [][]byte{{}, {0}, []byte("\r\n0\r\n\r\n"), all, bytes.Repeat(all, 2048)}
	batch, results := s.newBatch("bytes-", len(bodies))
	for i := range batch {
		batch[i].Body = bodies[i]
	}
	s.deliver(t, batch, results)
	for i := range batch {
		require.Equal(t, broker.Delivered, results[i].Outcome, results[i].Reason)
		if s.Received != nil {
			got, ok := s.byID(t)[batch[i].ID]
			require.True(t, ok)
			require.True(t, bytes.Equal(bodies[i], got.Body), "body %d differs", i)
		}
	}
}

// A key or a header may be lost, recoded, or given to a neighbour.
func keysAndHeaders(t *testing.T, s Subject) {
	if !s.Carries {
		t.Skip("keys and headers cannot be seen")
	}
	batch, results := s.newBatch("carried-", 4)
	for i, c := range []struct {
		key     string
		headers []delay.Header
	}{
		{"", nil},
		{"größe/ключ", []delay.Header{{Name: "x-größe", Value: "ß ключ 鍵"}}},
		{"k", []delay.Header{{Name: "a", Value: ""}, {Name: "b", Value: " spaces "}}},
		{"k", []delay.Header{{Name: "a", Value: strings.Repeat("long", 1000)}}},
	} {
		batch[i].RoutingKey, batch[i].Headers = c.key, c.headers
	}
	s.deliver(t, batch, results)
	got := s.byID(t)
	for i, d := range batch {
		require.Equal(t, broker.Delivered, results[i].Outcome, results[i].Reason)
		r, arrived := got[d.ID]
		require.True(t, arrived, "%s", d.ID)
		require.Equal(t, d.RoutingKey, r.Key, "%s", d.ID)
		require.ElementsMatch(t, d.Headers, r.Headers, "%s", d.ID)
	}
}

// Messages of one key may overtake each other within a batch.
func orderWithinKey(t *testing.T, s Subject) {
	if !s.Ordered {
		t.Skip("the order cannot be seen")
	}
	const keys = 5
	batch, results := s.newBatch("ordered-", 200)
	want := make([][]delay.ID, keys)
	keyOf := map[delay.ID]int{}
	for i := range batch {
		k := i * i % keys
		batch[i].RoutingKey = fmt.Sprint("key", k)
		want[k], keyOf[batch[i].ID] = append(want[k], batch[i].ID), k
	}
	s.deliver(t, batch, results)
	got := make([][]delay.ID, keys)
	for _, r := range s.Received() {
		k := keyOf[r.ID]
		got[k] = append(got[k], r.ID)
	}
	require.Equal(t, want, got)
}

// One refused message may take its neighbours with it (S7).
func neighbours(t *testing.T, s Subject) {
	if !s.Refuses {
		t.Skip("the receiver takes everything")
	}
	batch, results := s.newBatch("good-", 30)
	want := make([]broker.Outcome, len(batch))
	taken := 0
	for i := range batch {
		switch i % 5 {
		case 1:
			want[i], batch[i].ID = broker.Retry, "later-"+batch[i].ID
		case 3:
			want[i], batch[i].ID = broker.Rejected, "never-"+batch[i].ID
		default:
			want[i] = broker.Delivered
			taken++
		}
	}
	s.deliver(t, batch, results)
	for i, r := range results {
		require.Equal(t, want[i], r.Outcome, "%s: %s", batch[i].ID, r.Reason)
	}
	if s.Received != nil {
		require.Len(t, s.byID(t), taken)
	}
}

// A reason ends up in logs, metrics and dead letters: it must be there, short, and hold no body.
func reasons(t *testing.T, s Subject) {
	if !s.Refuses {
		t.Skip("the receiver takes everything")
	}
	for _, prefix := range []string{"later-", "never-"} {
		batch, results := s.newBatch(prefix, 1)
		batch[0].Body = []byte("canary-of-the-body")
		s.deliver(t, batch, results)
		require.NotEmpty(t, results[0].Reason)
		require.LessOrEqual(t, len(results[0].Reason), 200)
		require.NotContains(t, results[0].Reason, "canary")
	}
}

// Nothing may be sent, and nothing reported, for a context that has ended (B2).
func cancelledBefore(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	batch, results := s.newBatch("none-", 3)
	s.Sink.Deliver(ctx, batch, results)
	for _, r := range results {
		require.Equal(t, broker.Unknown, r.Outcome)
	}
	if s.Received != nil {
		require.Empty(t, s.Received())
	}
}

// A receiver that takes a message and never answers: Deliver must end with its context, the
// message stays Unknown, its neighbours keep their results, and the buffers are the caller's again.
func cancelledDuring(t *testing.T, s Subject) {
	if !s.Hangs {
		t.Skip("the receiver always answers")
	}
	batch, results := s.newBatch("fast-", 4)
	batch[3].ID = "silent-1"
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.Sink.Deliver(ctx, batch, results) })
	require.Eventually(t, func() bool {
		_, arrived := s.byID(t)["silent-1"]
		return arrived
	}, patience, time.Millisecond)
	cancel()
	wg.Wait()
	require.Equal(t, broker.Unknown, results[3].Outcome)
	for i := range 3 { // the end may have come before their answers
		require.Contains(t, []broker.Outcome{broker.Delivered, broker.Unknown}, results[i].Outcome)
	}
	for i := range batch { // under the race detector this tells who still reads
		clear(batch[i].Body)
		clear(batch[i].Headers)
	}
}

// Lanes deliver at the same time: results and messages must not be mixed up.
func concurrent(t *testing.T, s Subject) {
	const lanes, each = 6, 20
	var wg sync.WaitGroup
	defer wg.Wait()
	all := make([][]broker.Result, lanes)
	for lane := range lanes {
		batch, results := s.newBatch(fmt.Sprintf("lane%d-", lane), each)
		all[lane] = results
		wg.Go(func() { s.Sink.Deliver(t.Context(), batch, results) })
	}
	wg.Wait()
	for _, results := range all {
		for _, r := range results {
			require.Equal(t, broker.Delivered, r.Outcome, r.Reason)
		}
	}
	if s.Received != nil {
		got := s.byID(t)
		require.Len(t, got, lanes*each)
		for id, r := range got {
			require.Equal(t, "body of "+string(id), string(r.Body))
		}
	}
}
