// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cicadamq/cicada/delay"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // package realtest asks over HTTP and keeps its connection
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// listen serves each connection by serve, until the test ends.
func listen(t *testing.T, serve func(nc net.Conn)) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, nc)
			mu.Unlock()
			wg.Go(func() {
				defer nc.Close()
				serve(nc)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, nc := range open {
			nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// answering serves requests one after the other; no answer is sent for nil.
func answering(answer func(c *Command) *Command) func(net.Conn) {
	return func(nc net.Conn) {
		r := bufio.NewReader(nc)
		for {
			c, err := ReadCommand(r, DefaultMaxFrame)
			if err != nil {
				return
			}
			if a := answer(c); a != nil {
				b, err := a.Append(nil, DefaultMaxFrame)
				if err != nil {
					return
				}
				if _, err = nc.Write(b); err != nil {
					return
				}
			}
		}
	}
}

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// offsetIs answers an offset's request.
func offsetIs(c *Command, n int) *Command {
	a := c.Reply(OK, "")
	a.Fields = map[string]string{"offset": strconv.Itoa(n)}
	return a
}

func outcome(t *testing.T, err error) Outcome {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	return e.Outcome
}

// Answers come in any order: each must reach the call that asked.
func TestAnswersFindTheirCalls(t *testing.T) {
	for _, e := range []Encoding{JSON, Binary} {
		var held []*Command
		addr := listen(t, func(nc net.Conn) {
			r := bufio.NewReader(nc)
			for {
				c, err := ReadCommand(r, DefaultMaxFrame)
				if err != nil {
					return
				}
				held = append(held, c)
				if len(held) < 10 {
					continue
				}
				for _, h := range slices.Backward(held) {
					n, _ := strconv.Atoi(h.Fields["queueId"])
					b, err := offsetIs(h, n*7).Append(nil, DefaultMaxFrame)
					if err != nil {
						return
					}
					nc.Write(b)
				}
				held = nil
			}
		})
		c := newClient(t, Config{Encoding: e})
		var wg sync.WaitGroup
		var wrong atomic.Int64
		for n := range int32(100) {
			wg.Go(func() {
				got, err := c.MaxOffset(t.Context(), addr, "t", n)
				if err != nil || got != int64(n)*7 {
					wrong.Add(1)
				}
			})
		}
		wg.Wait()
		require.Zero(t, wrong.Load())
	}
}

// A message that may have left must not be called unsent, nor one that cannot have left be called
// uncertain: the one loses the message, the other duplicates it (M1).
func TestWhatIsKnownOfASend(t *testing.T) {
	t.Parallel()
	gotten := make(chan struct{}, 16)
	closing := listen(t, func(nc net.Conn) {
		ReadCommand(bufio.NewReader(nc), DefaultMaxFrame)
	})
	silent := listen(t, answering(func(*Command) *Command { gotten <- struct{}{}; return nil }))
	garbage := listen(t, func(nc net.Conn) {
		ReadCommand(bufio.NewReader(nc), DefaultMaxFrame)
		nc.Write([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
		ReadCommand(bufio.NewReader(nc), DefaultMaxFrame)
	})
	m := &Outgoing{Body: []byte("b")}
	send := func(ctx context.Context, addr string) error {
		c := newClient(t, Config{Timeout: 2 * time.Second})
		_, err := c.Send(ctx, addr, "t", 0, m)
		return err
	}
	err := send(t.Context(), "127.0.0.1:1") // nobody listens
	require.Equal(t, No, outcome(t, err))
	require.ErrorIs(t, err, delay.ErrUnavailable)
	for _, addr := range []string{closing, silent, garbage} {
		err = send(t.Context(), addr)
		require.Equal(t, Unknown, outcome(t, err), "%v", err)
		require.ErrorIs(t, err, delay.ErrUnavailable)
	}
	<-gotten
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = send(ctx, silent)
	require.Equal(t, No, outcome(t, err))
	require.ErrorIs(t, err, context.Canceled)
	_, err = newClient(t, Config{}).Send(t.Context(), silent, "t", 0, &Outgoing{})
	require.Equal(t, Never, outcome(t, err), "an empty body")
	require.Empty(t, gotten, "what is withdrawn must not leave")
}

// A request that waits behind others on a slow connection can still be withdrawn (M1).
func TestWithdrawnWhileItWaits(t *testing.T) {
	ours, theirs := net.Pipe() // takes nothing until it is read
	defer theirs.Close()
	c := newClient(t, Config{
		Timeout: time.Minute,
		Dial:    func(context.Context, string, string) (net.Conn, error) { return ours, nil },
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	errs := make(chan error, 20)
	for range cap(errs) {
		wg.Go(func() {
			_, err := c.Send(ctx, "x:1", "t", 0, &Outgoing{Body: make([]byte, 2*writeBuffer)})
			errs <- err
		})
	}
	require.Eventually(t, func() bool { // all but the one being written wait
		e, err := c.endpoint("x:1")
		c.mu.Lock()
		defer c.mu.Unlock()
		return err == nil && e.conn != nil && len(e.slots) == 20 && len(e.conn.out) == 19
	}, 20*time.Second, time.Millisecond)
	cancel()
	wg.Wait()
	close(errs)
	count := map[Outcome]int{}
	for err := range errs {
		count[outcome(t, err)]++
	}
	require.Equal(t, map[Outcome]int{No: 19, Unknown: 1}, count)

	ctx, cancel = context.WithCancel(t.Context())
	wg.Go(func() { c.Send(ctx, "x:1", "t", 0, &Outgoing{Body: []byte("last")}) })
	r := bufio.NewReader(theirs)
	cmd, err := ReadCommand(r, DefaultMaxFrame)
	require.NoError(t, err)
	require.Len(t, cmd.Body, 2*writeBuffer)
	cmd, err = ReadCommand(r, DefaultMaxFrame)
	require.NoError(t, err)
	require.Equal(t, "last", string(cmd.Body), "what was withdrawn has left")
	cancel()
	wg.Wait()
}

// More requests than allowed may wait for answers, and a broker fall behind for good (M3).
func TestRequestsInFlightAreBounded(t *testing.T) {
	const limit = 3
	var now, most atomic.Int64
	release := make(chan struct{})
	var replies sync.WaitGroup
	addr := listen(t, func(nc net.Conn) {
		r := bufio.NewReader(nc)
		var mu sync.Mutex
		for {
			c, err := ReadCommand(r, DefaultMaxFrame)
			if err != nil {
				return
			}
			most.Store(max(most.Load(), now.Add(1)))
			replies.Go(func() {
				<-release
				now.Add(-1)
				b, _ := offsetIs(c, 1).Append(nil, DefaultMaxFrame)
				mu.Lock()
				defer mu.Unlock()
				nc.Write(b)
			})
		}
	})
	c := newClient(t, Config{MaxInFlight: limit})
	var wg sync.WaitGroup
	for range 10 * limit {
		wg.Go(func() { c.MaxOffset(t.Context(), addr, "t", 0) })
	}
	require.Eventually(t, func() bool { return now.Load() == limit }, 20*time.Second, time.Millisecond)
	close(release)
	wg.Wait()
	replies.Wait()
	require.EqualValues(t, limit, most.Load())
}

// clock is a clock that tests move.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time      { return time.Unix(1_800_000_000, c.ns.Load()) }
func (c *clock) add(d time.Duration) { c.ns.Add(int64(d)) }

// A broker that is down must not be dialled by every request, and be tried again in the end; one
// that takes connections and closes them is down too (M4).
func TestPausesBetweenDials(t *testing.T) {
	closing := listen(t, func(net.Conn) {})
	answers := listen(t, answering(func(c *Command) *Command { return offsetIs(c, 1) }))
	for _, broken := range []string{"127.0.0.1:1", closing} {
		var clock clock
		var dials atomic.Int64
		to := atomic.Pointer[string]{}
		to.Store(&broken)
		c := newClient(t, Config{
			Now: clock.now,
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				dials.Add(1)
				return (&net.Dialer{}).DialContext(ctx, network, *to.Load())
			},
			Timeout: 10 * time.Second,
		})
		pause := MinBackoff
		for n := range int64(10) {
			for range 5 {
				_, err := c.MaxOffset(t.Context(), "x:1", "t", 0)
				require.ErrorIs(t, err, delay.ErrUnavailable)
			}
			require.Equal(t, n+1, dials.Load())
			clock.add(pause - 1)
			_, err := c.MaxOffset(t.Context(), "x:1", "t", 0)
			require.Equal(t, No, outcome(t, err))
			require.Equal(t, n+1, dials.Load(), "pause of %v", pause)
			clock.add(1)
			pause = min(2*pause, MaxBackoff)
		}
		to.Store(&answers)
		got, err := c.MaxOffset(t.Context(), "x:1", "t", 0)
		require.NoError(t, err)
		require.EqualValues(t, 1, got)
		_, err = c.MaxOffset(t.Context(), "x:1", "t", 0) // notes that it is fine
		require.NoError(t, err)
		e, err := c.endpoint("x:1")
		require.NoError(t, err)
		require.Zero(t, e.failures)
	}
}

// A caller that gives up says nothing of the broker: the next one must be let through.
func TestGivingUpIsNoFailure(t *testing.T) {
	addr := listen(t, answering(func(c *Command) *Command { return offsetIs(c, 1) }))
	entered := make(chan struct{})
	var dials atomic.Int64
	c := newClient(t, Config{Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
		if dials.Add(1) == 1 {
			close(entered)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return (&net.Dialer{}).DialContext(ctx, n, a)
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { c.MaxOffset(ctx, addr, "t", 0) })
	<-entered
	cancel()
	wg.Wait()
	_, err := c.MaxOffset(t.Context(), addr, "t", 0)
	require.NoError(t, err)
}

// A broker closes what is idle for 120 s: a request that meets the close would be Unknown.
func TestIdleConnectionsAreReplaced(t *testing.T) {
	var clock clock
	var conns atomic.Int64
	addr := listen(t, func(nc net.Conn) {
		conns.Add(1)
		answering(func(c *Command) *Command { return offsetIs(c, 1) })(nc)
	})
	c := newClient(t, Config{Now: clock.now})
	ask := func() {
		_, err := c.MaxOffset(t.Context(), addr, "t", 0)
		require.NoError(t, err)
	}
	// The clock stands still in between, so a deadline set by it has passed long ago in real time.
	c.cfg.Timeout = 50 * 365 * 24 * time.Hour
	ask()
	clock.add(maxIdle - 1)
	ask()
	clock.add(maxIdle)
	ask()
	require.EqualValues(t, 2, conns.Load())
}

// One name server that is down must not make a topic unknown, and one that knows nothing of a
// topic must not make the others be asked for ever.
func TestNameServersTakeTurns(t *testing.T) {
	var asked atomic.Int64
	body := fromBroker(t, "route")
	up := listen(t, answering(func(c *Command) *Command {
		asked.Add(1)
		if c.Fields["topic"] != TopicSchedule {
			return c.Reply(TopicNotExist, "no")
		}
		a := c.Reply(OK, "")
		a.Body = body
		return a
	}))
	var clock clock
	c := newClient(t, Config{NameServers: []string{"127.0.0.1:1", up}, Now: clock.now})
	c.cfg.Timeout = 50 * 365 * 24 * time.Hour
	r, err := c.Route(t.Context(), TopicSchedule)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:21354", r.Master("broker-a"))
	require.Empty(t, r.Master("broker-b"))
	require.Len(t, r.Writable(), 18)
	require.Equal(t, Queue{"broker-a", 17}, r.Readable()[17])
	_, err = c.Route(t.Context(), TopicSchedule)
	require.NoError(t, err)
	require.EqualValues(t, 1, asked.Load(), "a route is kept")
	_, err = c.Route(t.Context(), "other")
	require.ErrorIs(t, err, delay.ErrNotFound)
	clock.add(DefaultRouteAge)
	_, err = c.Route(t.Context(), TopicSchedule)
	require.NoError(t, err)
	require.EqualValues(t, 3, asked.Load(), "and asked for again when it is old")

	clock.add(DefaultRouteAge)
	c.cfg.NameServers = []string{"127.0.0.1:1"} // none answers: what is known is used
	again, err := c.Route(t.Context(), TopicSchedule)
	require.NoError(t, err)
	require.Equal(t, r, again)
	_, err = c.Refresh(t.Context(), TopicSchedule)
	require.ErrorIs(t, err, delay.ErrUnavailable)
}

// What a broker and a name server tell of themselves is written in a JSON of their own.
func TestAnswersOfARealBroker(t *testing.T) {
	addr := listen(t, answering(func(c *Command) *Command {
		a := c.Reply(OK, "")
		a.Body = fromBroker(t, map[int]string{
			RequestCluster: "cluster", RequestDelayOffsets: "delayoffsets",
			RequestTimerMetrics: "timermetrics", RequestTimerCheckpoint: "timercheckpoint",
		}[c.Code])
		return a
	}))
	c := newClient(t, Config{NameServers: []string{addr}})
	all, err := c.Cluster(t.Context())
	require.NoError(t, err)
	require.Equal(t, []BrokerRoute{{
		Name: "broker-a", Cluster: "DefaultCluster", Addresses: map[int64]string{0: "127.0.0.1:21354"},
	}}, all)
	offsets, err := c.DelayOffsets(t.Context(), addr)
	require.NoError(t, err)
	require.Equal(t, map[int]int64{5: 2}, offsets)
	metrics, err := c.TimerMetrics(t.Context(), addr)
	require.NoError(t, err)
	require.Contains(t, metrics, "TJSON")
	point, err := c.TimerCheckpoint(t.Context(), addr)
	require.NoError(t, err)
	require.Positive(t, point.ReadAt)
	require.EqualValues(t, 2, point.Enqueued-2, "%+v", point)
}

// Numbers of runtime info come as text, and some are not there.
func TestRuntimeNumbers(t *testing.T) {
	r := Runtime{
		"commitLogMinOffset": "5", "commitLogMaxOffset": "77", "scheduleMessageOffset_7": "3,20",
		"scheduleMessageOffset_8": "x",
	}
	low, high, err := r.CommitLog()
	require.NoError(t, err)
	require.Equal(t, []int64{5, 77}, []int64{low, high})
	delivered, end, ok := r.Level(7)
	require.True(t, ok)
	require.Equal(t, []int64{3, 20}, []int64{delivered, end})
	for _, level := range []int{8, 9} {
		_, _, ok = r.Level(level)
		require.False(t, ok)
	}
	_, _, err = Runtime{}.CommitLog()
	require.ErrorIs(t, err, delay.ErrCorrupt)
}

// What an answer means for a message decides between a loss and a duplicate.
func TestOutcomesOfAnswers(t *testing.T) {
	for want, codes := range map[Outcome][]int{
		Yes:     {OK},
		Unknown: {SystemError, FlushDiskTimeout, SlaveNotAvailable, FlushSlaveTimeout, 9999},
		No:      {SystemBusy, ServiceNotAvailable, NoPermission, TopicNotExist, FlowControl, GoAway},
		Never:   {NotSupported, MessageIllegal, VersionNotSupported, InvalidParameter},
	} {
		for _, code := range codes {
			require.Equal(t, want, OutcomeOf(code), "%d", code)
			remark := "line one " + fmt.Sprint(code) + "\n\tat org.apache"
			addr := listen(t, answering(func(c *Command) *Command {
				a := c.Reply(code, remark)
				a.Fields = map[string]string{"queueId": "3", "queueOffset": "9", "msgId": "A B,C"}
				return a
			}))
			c := newClient(t, Config{})
			s, err := c.Send(t.Context(), addr, "t", 0, &Outgoing{Body: []byte("b")})
			if want == Yes {
				require.NoError(t, err)
				require.Equal(t, Sent{Queue: 3, Offset: 9, MessageIDs: []string{"A B", "C"}}, s)
				continue
			}
			require.Equal(t, want, outcome(t, err))
			require.NotContains(t, err.Error(), "org.apache")
			stored := code >= FlushDiskTimeout && code <= FlushSlaveTimeout
			require.Equal(t, stored, s.Offset == 9, "%d says where it was stored", code)
		}
	}
	e := answered("send", "x", &Command{Code: SystemError, Remark: "message body size exceeded, x"})
	require.Equal(t, Never, e.Outcome, "what is too large does not shrink")
	require.True(t, errors.Is(e, delay.ErrUnavailable) || errors.Is(e, delay.ErrInvalid))
}

// An answer without what was asked for must not be read as 0.
func TestAnswersThatLackFields(t *testing.T) {
	addr := listen(t, answering(func(c *Command) *Command { return c.Reply(OK, "") }))
	c := newClient(t, Config{NameServers: []string{addr}})
	_, err := c.MaxOffset(t.Context(), addr, "t", 0)
	require.ErrorIs(t, err, delay.ErrCorrupt)
	_, err = c.Pull(t.Context(), addr, Pull{})
	require.ErrorIs(t, err, delay.ErrCorrupt)
	_, err = c.Send(t.Context(), addr, "t", 0, &Outgoing{Body: []byte("b")})
	require.Equal(t, Unknown, outcome(t, err))
	_, err = c.Route(t.Context(), "t")
	require.ErrorIs(t, err, delay.ErrCorrupt)
	_, err = c.RuntimeInfo(t.Context(), addr)
	require.ErrorIs(t, err, delay.ErrCorrupt)
	_, err = c.TimerCheckpoint(t.Context(), addr)
	require.ErrorIs(t, err, delay.ErrCorrupt)
	_, err = c.View(t.Context(), addr, 1)
	require.ErrorIs(t, err, delay.ErrCorrupt)
}

// The index finds by hash: what has another key, or lies in another topic, was not asked for.
func TestQueriesAreExact(t *testing.T) {
	mine, other, elsewhere := stored(), stored(), stored()
	other.Properties = Properties{{PropertyUniqueKey, "U2"}}
	elsewhere.Topic = "elsewhere"
	var body []byte
	for _, m := range []*Message{&other, &mine, &elsewhere} {
		body, _ = m.Append(body)
	}
	addr := listen(t, answering(func(c *Command) *Command {
		a := c.Reply(OK, "")
		a.Body = body
		return a
	}))
	found, err := newClient(t, Config{}).Query(t.Context(), addr,
		Query{Topic: "orders", Key: "U1", Unique: true})
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, "U1", found[0].Properties.Value(PropertyUniqueKey))
}

// A server checks this over the very same bytes; the expected value was computed elsewhere.
func TestSignature(t *testing.T) {
	seen := make(chan *Command, 1)
	addr := listen(t, answering(func(c *Command) *Command { seen <- c; return c.Reply(OK, "") }))
	c := newClient(t, Config{AccessKey: "ak", SecretKey: "secret", SecurityToken: "tok"})
	_, err := c.ask(t.Context(), "x", addr, &Command{
		Fields: map[string]string{"b": "topic", "a": "g"}, Body: []byte("body"),
	})
	require.NoError(t, err)
	got := <-seen
	require.Equal(t, "AJE2krlHVn8igNNimWu8/q3gB6Y=", got.Fields[fieldSignature])
	_, err = c.SendBatch(t.Context(), addr, "t", 0, []Outgoing{{}})
	require.Equal(t, Unknown, outcome(t, err)) // the answer has no fields
	for name, value := range (<-seen).Fields {
		require.NotEmpty(t, value, "%s: a real broker signs it as null", name)
	}
	_, err = New(Config{AccessKey: "only"})
	require.ErrorIs(t, err, delay.ErrInvalid)
}

// A closed client must end what is under way, and leave nothing running (M5; goleak watches).
func TestCloseEndsCalls(t *testing.T) {
	arrived := make(chan struct{}, 8)
	addr := listen(t, answering(func(*Command) *Command { arrived <- struct{}{}; return nil }))
	c := newClient(t, Config{Timeout: time.Hour})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			_, err := c.MaxOffset(t.Context(), addr, "t", 0)
			require.ErrorIs(t, err, delay.ErrClosed)
		})
		<-arrived
	}
	require.NoError(t, c.Close())
	wg.Wait()
	_, err := c.MaxOffset(t.Context(), addr, "t", 0)
	require.ErrorIs(t, err, delay.ErrClosed)
}

// Wrong settings must be refused before anything is asked.
func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{
		{Timeout: -1}, {MaxInFlight: -1}, {MaxFrame: -1}, {RouteAge: -1}, {SecretKey: "s"},
		{NameServers: []string{"no port"}}, {Encoding: 2},
	} {
		_, err := New(cfg)
		require.ErrorIs(t, err, delay.ErrInvalid)
	}
}
