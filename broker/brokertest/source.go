// SPDX-License-Identifier: Apache-2.0

package brokertest

import (
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

// Sent is a record that the suite gives to the broker. Its headers are ours, which every kind of
// source reads.
type Sent struct {
	Headers []delay.Header
	Value   []byte
}

// Reject is a record of the reject topic.
type Reject struct {
	Value []byte
	Error string // of its header cicada-error
}

// SourceSubject is a topic of a broker, and sources that read it.
type SourceSubject struct {
	// Open opens a source of the topic, in the same group as every other. The suite runs and
	// closes it.
	Open func(t *testing.T) broker.Source
	// Append adds records to a partition, from 0 to Partitions-1, and returns when the broker
	// keeps them.
	Append     func(t *testing.T, partition int, records ...Sent)
	Partitions int
	// Acknowledged is how many records of a partition, from its first on, the broker takes for
	// done; nil when that cannot be seen.
	Acknowledged func(t *testing.T, partition int) int64
	// Rejected lists the reject topic; nil when there is none.
	Rejected func(t *testing.T) []Reject
	// Restart restarts the broker, or cuts its connections; nil when that cannot be done.
	Restart func(t *testing.T)
	// Shares says that two sources of a group share the partitions.
	Shares bool
}

// joinWithin is how long a new member has to get a partition that it must not touch yet.
const joinWithin = 300 * time.Millisecond

// RunSource runs the suite for sources. open makes a fresh, empty topic whose sources have commit:
// tier or commit: local, and cleans up with t.Cleanup.
//
// It checks what the scheduler stands on: whatever fails and however often, every record is taken,
// in order and once in the store (B4, B5), what cannot be a request does not stop the others (B6),
// and nothing is acknowledged before it is as durable as asked for (B4, R16).
func RunSource(t *testing.T, open func(t *testing.T, tier bool) SourceSubject) {
	t.Helper()
	for _, c := range []struct {
		name string
		tier bool
		run  func(t *testing.T, s *sourceRun)
	}{
		{"in order", false, sourceInOrder},
		{"as it was", false, sourceAsItWas},
		{"delays", true, sourceDelays},
		{"while it runs", true, sourceWhileItRuns},
		{"unknown outcomes", false, sourceUnknown},
		{"overloaded", false, sourceOverloaded},
		{"slow", false, sourceSlow},
		{"poison", false, sourcePoison},
		{"poison and a crash", false, sourcePoisonCrash},
		{"restart", false, sourceRestart},
		{"disk lost, local", false, sourceDiskLost},
		{"disk lost, tier", true, sourceDiskLost},
		{"disk lost, nothing covered", true, sourceAllLost},
		{"acknowledges, local", false, sourceAcknowledges},
		{"acknowledges, tier", true, sourceAcknowledges},
		{"shared", false, sourceShared},
		{"broker restarts", true, sourceBrokerRestarts},
		{"ends", false, sourceEnds},
		{"fenced", false, sourceFenced},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &sourceRun{SourceSubject: open(t, c.tier), in: NewIntake(), tier: c.tier}
			s.sent = make([]int, s.Partitions)
			c.run(t, s)
			require.Empty(t, s.in.Breaches())
		})
	}
}

// sourceRun is one test of the suite.
type sourceRun struct {
	SourceSubject

	in   *Intake
	tier bool
	sent []int // good records of each partition
}

// start runs a source until stop, which fails the test when it does not end in time.
func (s *sourceRun) start(t *testing.T) (stop func()) {
	t.Helper()
	src := s.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- src.Run(ctx, s.in) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-ended:
				require.NoError(t, err, "the end of its context is no error")
			case <-time.After(patience):
				require.FailNow(t, "Run did not return in time")
			}
			require.NoError(t, src.Close())
		})
	}
	t.Cleanup(stop)
	return stop
}

// send appends n good records to every partition.
func (s *sourceRun) send(t *testing.T, n int) {
	t.Helper()
	for p := range s.Partitions {
		records := make([]Sent, n)
		for i := range records {
			records[i] = good(p, s.sent[p]+i)
		}
		s.Append(t, p, records...)
		s.sent[p] += n
	}
}

// good is the n-th record of a partition; its id says so.
func good(partition, n int) Sent {
	return Sent{
		Headers: []delay.Header{
			{Name: "cicada-id", Value: goodID(partition, n)},
			{Name: "cicada-delay", Value: "1h"},
			{Name: "cicada-target", Value: "pull:orders"},
		},
		Value: fmt.Appendf(nil, "body of %s", goodID(partition, n)),
	}
}

func goodID(partition, n int) string { return fmt.Sprintf("p%d-%d", partition, n) }

// awaitAll waits until as many records are stored as were sent, and checks them.
func (s *sourceRun) awaitAll(t *testing.T) {
	t.Helper()
	want := 0
	for _, n := range s.sent {
		want += n
	}
	if !waitFor(t, func() bool { return s.in.count(isGood) >= want }) {
		require.FailNow(t, "not everything arrived", "%d of %d", s.in.count(isGood), want)
	}
	s.check(t)
}

// taken is what is stored of the good records.
func (s *sourceRun) taken() []Taken {
	var out []Taken
	for _, k := range s.in.Taken() {
		if isGood(&k) {
			out = append(out, k)
		}
	}
	return out
}

// isGood reports whether it was made by good.
func isGood(k *Taken) bool { return strings.HasPrefix(string(k.ID()), "p") }

// waitFor waits, within patience, until ok.
func waitFor(t *testing.T, ok func() bool) bool {
	t.Helper()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	end := time.NewTimer(patience)
	defer end.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			return ok()
		}
	}
	return true
}

// check says that every good record is stored once, in order, each partition under one name.
func (s *sourceRun) check(t *testing.T) {
	t.Helper()
	next := make([]int, s.Partitions)
	names := make([]broker.Partition, s.Partitions)
	for _, k := range s.taken() {
		var p, n int
		_, err := fmt.Sscanf(string(k.ID()), "p%d-%d", &p, &n)
		require.NoError(t, err)
		require.Equal(t, next[p], n, "partition %d: the order is broken, or one is missing (B5)", p)
		next[p]++
		if n == 0 {
			names[p] = k.Partition
		}
		require.Equal(t, names[p], k.Partition, "a partition has one name for ever (R17)")
		require.Equal(t, s.tier, k.Tier, "commit: tier asks for the tier (R16)")
	}
	require.Equal(t, s.sent, next)
	require.Empty(t, s.in.Breaches())
}

// Partitions and their order may be mixed up, and records at the edges of batches lost (B5).
func sourceInOrder(t *testing.T, s *sourceRun) {
	s.send(t, 2*broker.MaxBatch+17)
	stop := s.start(t)
	s.awaitAll(t)
	s.send(t, 1)
	s.awaitAll(t)
	stop()
}

// What the record says must be what is stored, and a cancel must withdraw.
func sourceAsItWas(t *testing.T, s *sourceRun) {
	body := make([]byte, 256)
	for i := range body {
		body[i] = byte(i)
	}
	s.Append(t, 0,
		Sent{Value: body, Headers: []delay.Header{
			{Name: "cicada-id", Value: "größe 1"},
			{Name: "cicada-deliver-at", Value: "1900000000000"},
			{Name: "cicada-target", Value: "pull:q"}, {Name: "cicada-key", Value: "k"},
			{Name: "x-user", Value: "größe"},
		}},
		Sent{Value: []byte("no id"), Headers: []delay.Header{
			{Name: "cicada-delay", Value: "2h"}, {Name: "cicada-target", Value: "pull:q"},
		}},
		Sent{Value: []byte("cancel"), Headers: []delay.Header{
			{Name: "cicada-id", Value: "größe 1"}, {Name: "cicada-cancel", Value: "true"},
		}})
	stop := s.start(t)
	require.Eventually(t, func() bool { return len(s.in.Taken()) == 3 }, patience, time.Millisecond)
	stop()
	got := s.in.Taken()
	d := got[0].Draft
	require.Equal(t, delay.ID("größe 1"), d.ID)
	require.Equal(t, delay.Due(1_900_000_000_000), d.Due)
	require.Equal(t, delay.Target("pull:q"), d.Target)
	require.Equal(t, "k", d.RoutingKey)
	require.Equal(t, body, d.Body)
	require.Equal(t, []delay.Header{{Name: "x-user", Value: "größe"}}, d.Headers)
	require.Equal(t, Clock, d.AcceptedAt)

	require.Contains(t, string(got[1].Draft.ID), string(got[1].Partition), "it is where it lies")
	require.Equal(t, delay.ID("größe 1"), got[2].Cancel)
}

// A delay counts from when the broker got the record: reading it later, or once more after the loss
// of the disk, must not make it longer, and a broker whose clock is ahead must not either (R17).
func sourceDelays(t *testing.T, s *sourceRun) {
	s.in.HoldCover() // without a cover: all is read again
	const wait = 2 * time.Hour
	began := time.Now()
	s.Append(t, 0, Sent{Value: []byte("later"), Headers: []delay.Header{
		{Name: "cicada-delay", Value: wait.String()}, {Name: "cicada-target", Value: "pull:q"},
	}})
	read := func() delay.Draft {
		stop := s.start(t)
		require.Eventually(t, func() bool { return len(s.in.Taken()) == 1 }, patience, time.Millisecond)
		stop()
		return s.in.Taken()[0].Draft
	}
	first := read()
	require.True(t, first.ByDelay)
	const skew = time.Minute // of two clocks of one machine, and of a loaded one
	require.WithinRange(t, first.Due.Time(), began.Add(wait-skew), time.Now().Add(wait+skew),
		"it does not count from when the broker got it")
	s.in.LoseDisk()
	s.in.Advance(time.Hour)
	again := read()
	require.Equal(t, first.ID, again.ID)
	require.Equal(t, first.Due, again.Due, "it began anew")
	s.in.LoseDisk()
	s.in.Advance(-time.Duration(Clock) * time.Millisecond / 4 * 3) // to before the broker's
	require.Equal(t, s.in.Now().Add(wait), read().Due, "it counts from an instant to come")
}

// A source that waits for records must hear of each that comes.
func sourceWhileItRuns(t *testing.T, s *sourceRun) {
	stop := s.start(t)
	for range 5 {
		s.send(t, 3)
		s.awaitAll(t)
	}
	stop()
}

// After an error nobody knows whether the batch was taken: going on behind it may skip it, going
// on before it must not store it twice (B4).
func sourceUnknown(t *testing.T, s *sourceRun) {
	s.in.Script(func(call int, _ *broker.Batch) Fault {
		switch call % 4 {
		case 1:
			return Fault{Err: ErrUnknown, Stored: true}
		case 2:
			return Fault{Err: ErrUnknown}
		case 3:
			return Fault{Err: delay.ErrUnavailable}
		}
		return Fault{}
	})
	s.send(t, 50)
	stop := s.start(t)
	s.awaitAll(t)
	s.send(t, 50)
	s.awaitAll(t)
	stop()
}

// A shard that has no room must be asked again after a pause, not without end.
func sourceOverloaded(t *testing.T, s *sourceRun) {
	const refusals = 6
	s.in.Script(func(call int, _ *broker.Batch) Fault {
		if call <= refusals {
			return Fault{Err: []error{delay.ErrOverloaded, delay.ErrDiskFull}[call%2]}
		}
		return Fault{}
	})
	s.send(t, 30)
	began := time.Now()
	stop := s.start(t)
	s.awaitAll(t)
	stop()
	require.Greater(t, s.in.Calls(), refusals)
	require.Greater(t, time.Since(began), 10*time.Millisecond, "there was no pause")
}

// A shard that takes its time must not be hurried: what waits stays with the broker, as it is.
func sourceSlow(t *testing.T, s *sourceRun) {
	s.in.Hold()
	s.send(t, 20)
	stop := s.start(t)
	require.Eventually(t, func() bool { return s.in.Calls() > 0 }, patience, time.Millisecond)
	s.send(t, 20)
	require.Empty(t, s.in.Taken())
	s.in.Release()
	s.awaitAll(t)
	stop()

	s.in.Hold() // and it must end although the shard does not answer
	s.send(t, 5)
	stop = s.start(t)
	stop()
	s.in.Release()
	stop = s.start(t)
	s.awaitAll(t)
	stop()
}

// A daemon that stops and starts again must go on where it was.
func sourceRestart(t *testing.T, s *sourceRun) {
	for range 3 {
		s.send(t, 40)
		call := s.in.Calls()
		stop := s.start(t)
		require.Eventually(t, func() bool { return s.in.Calls() > call }, patience,
			time.Millisecond)
		stop() // wherever it is
	}
	stop := s.start(t)
	s.awaitAll(t)
	stop()
}

// After the loss of the disk the cursor is the manifest's, which may be far below what the broker
// was told: the source must go back to it (B4).
func sourceDiskLost(t *testing.T, s *sourceRun) {
	s.in.HoldCover()
	s.send(t, 30)
	stop := s.start(t)
	s.awaitAll(t)
	s.in.Cover()
	s.send(t, 30)
	s.awaitAll(t)
	stop()

	s.in.LoseDisk()
	require.Len(t, s.taken(), 30*s.Partitions)
	stop = s.start(t)
	s.awaitAll(t)
	stop()
}

// With commit: tier a lost disk without a manifest loses nothing: nothing was acknowledged (B4).
func sourceAllLost(t *testing.T, s *sourceRun) {
	s.in.HoldCover()
	s.send(t, 30)
	stop := s.start(t)
	s.awaitAll(t)
	stop()
	s.in.LoseDisk()
	require.Empty(t, s.taken())
	stop = s.start(t)
	s.awaitAll(t)
	stop()
}

// What is acknowledged too early is lost with the disk, what is never acknowledged piles up at the
// broker (B4, R16).
func sourceAcknowledges(t *testing.T, s *sourceRun) {
	if s.Acknowledged == nil {
		t.Skip("what is acknowledged cannot be seen")
	}
	acknowledged := func(want int64) {
		t.Helper()
		for p := range s.Partitions {
			require.Eventually(t, func() bool { return s.Acknowledged(t, p) == want }, patience,
				10*time.Millisecond, "partition %d: other than %d are acknowledged", p, want)
		}
	}
	s.in.HoldCover()
	s.send(t, 20)
	stop := s.start(t)
	s.awaitAll(t)
	if !s.tier {
		acknowledged(20)
		stop()
		return
	}
	stop() // at the latest now it would
	acknowledged(0)

	stop = s.start(t)
	s.in.Cover()
	s.send(t, 20)
	s.awaitAll(t)
	acknowledged(20)
	stop()
	acknowledged(20)
	s.in.Cover()
	stop = s.start(t)
	acknowledged(40)
	stop()
}

// A partition moves from one member of the group to another while both run: none may be skipped,
// and none taken by both at once (B5).
func sourceShared(t *testing.T, s *sourceRun) {
	if !s.Shares {
		t.Skip("its sources do not share")
	}
	s.send(t, 30)
	first := s.start(t)
	s.awaitAll(t)

	s.in.Hold() // the first is in the middle of a batch of each while the second joins
	call := s.in.Calls()
	s.send(t, 30)
	require.Eventually(t, func() bool { return s.in.Calls() > call }, patience, time.Millisecond)
	second := s.start(t)
	select {
	case <-time.After(joinWithin):
	case <-t.Context().Done():
	}
	s.in.Release()
	s.awaitAll(t)
	first()
	s.send(t, 30)
	s.awaitAll(t)
	third := s.start(t)
	second()
	s.send(t, 30)
	s.awaitAll(t)
	third()
}

// A broker that goes away and comes back must be found again.
func sourceBrokerRestarts(t *testing.T, s *sourceRun) {
	if s.Restart == nil {
		t.Skip("the broker cannot be restarted")
	}
	s.send(t, 20)
	stop := s.start(t)
	s.awaitAll(t)
	s.Restart(t)
	s.send(t, 20)
	s.awaitAll(t)
	stop()
}

// A source that was never run, or runs with nothing to read, must end as any other.
func sourceEnds(t *testing.T, s *sourceRun) {
	require.NoError(t, s.Open(t).Close())
	s.start(t)()
	s.send(t, 1)
	stop := s.start(t)
	s.awaitAll(t)
	stop()
}

// A shard that is fenced or closed takes nothing more: Run must neither go round and round nor
// acknowledge anything.
func sourceFenced(t *testing.T, s *sourceRun) {
	for _, end := range []error{delay.ErrFenced, delay.ErrClosed} {
		s.in.Script(func(int, *broker.Batch) Fault { return Fault{Err: end} })
		call := s.in.Calls()
		s.send(t, 5)
		stop := s.startFenced(t, end)
		require.Eventually(t, func() bool { return s.in.Calls() > call }, patience,
			time.Millisecond)
		stop()
		require.LessOrEqual(t, s.in.Calls()-call, 10*s.Partitions)
	}
	s.in.Script(nil)
	stop := s.start(t)
	s.awaitAll(t)
	stop()
}

// startFenced is start for a source that may return the error of the shard.
func (s *sourceRun) startFenced(t *testing.T, end error) (stop func()) {
	t.Helper()
	src := s.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- src.Run(ctx, s.in) }()
	return func() {
		var err error
		select {
		case err = <-ended:
		case <-time.After(time.Second): // it may also wait to be stopped
			cancel()
			err = <-ended // and have been about to end by itself
		}
		cancel()
		if err != nil {
			require.ErrorIs(t, err, end)
		}
		require.NoError(t, src.Close())
	}
}
