// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// Codes of a stream's answers that no later attempt will change.
const (
	codeMessageTooLarge = 10054
	codeHeaderTooLarge  = 10097
)

// Sink publishes messages to the streams of one NATS system.
type Sink struct {
	broker  string
	timeout time.Duration
	nc      *nats.Conn
	acks    *nats.Subscription
	inbox   string // with its last dot; the answers come to <inbox><flight>.<index>

	mu      sync.Mutex
	flights map[uint64]*flight // one per Deliver
	last    uint64
}

var (
	_ broker.Sink    = (*Sink)(nil)
	_ broker.Checker = (*Sink)(nil)
)

// flight is what one Deliver waits for. Its results are written to a slice of its own: an answer
// may still be on its way here when the caller has its slice back.
type flight struct {
	subject string
	results []broker.Result
	known   []bool
	left    int
	done    chan struct{} // closed when nothing is left
}

// NewSink checks cfg and begins to connect. What is wrong with cfg wraps delay.ErrInvalid.
func NewSink(cfg Config) (*Sink, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	s := &Sink{
		broker: cfg.Broker, timeout: cfg.AckTimeout, flights: make(map[uint64]*flight),
	}
	log := cfg.Logger
	s.nc, err = cfg.connect(
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			logLost(log, err)
			s.lost()
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			logReported(log, err)
			s.forbidden(err)
		}),
	)
	if err != nil {
		return nil, err
	}
	s.inbox = s.nc.NewInbox() + "."
	if s.acks, err = s.nc.Subscribe(s.inbox+"*.*", s.answered); err != nil {
		s.nc.Close()
		return nil, fmt.Errorf("subscribe to the acks of broker %s: %w", cfg.Broker, err)
	}
	return s, nil
}

// Check implements broker.Checker.
func (s *Sink) Check(target delay.Target) error {
	if _, reason := subjectOf(target, s.broker); reason != "" {
		return delay.Invalid("target", "%s", reason)
	}
	return nil
}

// Deliver publishes batch in its order and waits for the answers, at most Config.AckTimeout.
func (s *Sink) Deliver(ctx context.Context, batch []broker.Delivery, results []broker.Result) {
	if len(batch) == 0 || ctx.Err() != nil {
		return
	}
	subject, reason := subjectOf(batch[0].Target, s.broker)
	if reason != "" {
		fill(results, broker.Result{Outcome: broker.Rejected, Reason: reason})
		return
	}
	if !s.nc.IsConnected() {
		fill(results, s.away())
		return
	}
	n, f := s.takeOff(strings.Clone(subject), len(batch))
	reply := s.inbox + strconv.FormatUint(n, 10) + "."
	for i := range batch {
		if err := s.publish(&batch[i], subject, reply+strconv.Itoa(i)); err != nil {
			s.settle(f, i, s.refused(err))
		}
	}
	wait := time.NewTimer(s.timeout)
	defer wait.Stop()
	select {
	case <-f.done:
	case <-ctx.Done():
	case <-wait.C:
	}
	s.land(n, f, results)
}

// publish hands one message to the connection, which copies it.
func (s *Sink) publish(d *broker.Delivery, subject, reply string) error {
	h, reason := header(d)
	if reason != "" {
		return rejectedError(reason)
	}
	return s.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Header: h, Data: d.Body})
}

// rejectedError is a message that can never be published.
type rejectedError string

func (e rejectedError) Error() string { return string(e) }

// refused is the outcome of a publish that returned an error. A write that failed half way may
// have sent the message: it is Unknown (N3).
func (s *Sink) refused(err error) broker.Result {
	rejected, refused := errors.AsType[rejectedError](err)
	switch {
	case refused:
		return broker.Result{Outcome: broker.Rejected, Reason: string(rejected)}
	case errors.Is(err, nats.ErrMaxPayload):
		return broker.Result{
			Outcome: broker.Rejected, Reason: "larger than the server's max_payload",
		}
	case notSent(err):
		return s.away()
	}
	return broker.Result{Reason: "not known whether it was sent: " + brief(err.Error())}
}

func (s *Sink) away() broker.Result {
	return broker.Result{Outcome: broker.Retry, Reason: "not connected to the broker " + s.broker}
}

func fill(results []broker.Result, r broker.Result) {
	for i := range results {
		results[i] = r
	}
}

// takeOff registers a flight before its first publish, so that no answer can miss it.
func (s *Sink) takeOff(subject string, n int) (uint64, *flight) {
	f := &flight{
		subject: subject, results: make([]broker.Result, n), known: make([]bool, n), left: n,
		done: make(chan struct{}),
	}
	fill(f.results, broker.Result{Reason: "no answer from the broker " + s.broker})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.flights[s.last] = f
	return s.last, f
}

// land hands the results over; answers that come later find no flight.
func (s *Sink) land(n uint64, f *flight, results []broker.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, n)
	copy(results, f.results)
}

func (s *Sink) settle(f *flight, i int, r broker.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.settle(i, r)
}

// settle writes a result once (B1). The lock is held.
func (f *flight) settle(i int, r broker.Result) {
	if i < 0 || i >= len(f.known) || f.known[i] {
		return
	}
	f.known[i], f.results[i] = true, r
	if f.left--; f.left == 0 {
		close(f.done)
	}
}

// answered takes an answer to a publish.
func (s *Sink) answered(m *nats.Msg) {
	number, index, ok := strings.Cut(strings.TrimPrefix(m.Subject, s.inbox), ".")
	n, err := strconv.ParseUint(number, 10, 64)
	i, err2 := strconv.Atoi(index)
	if !ok || err != nil || err2 != nil {
		return
	}
	r := answer(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[n]; f != nil {
		f.settle(i, r)
	}
}

// answer reads the answer of a stream, or the server's that nobody listens.
func answer(m *nats.Msg) broker.Result {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return broker.Result{Outcome: broker.Retry, Reason: "no stream holds this subject"}
	}
	var a struct {
		Stream string `json:"stream"`
		Error  *struct {
			ErrCode     int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	switch err := json.Unmarshal(m.Data, &a); {
	case err != nil || a.Error == nil && a.Stream == "":
		return broker.Result{Reason: "the answer does not come from a stream"}
	case a.Error == nil:
		return broker.Result{Outcome: broker.Delivered}
	case a.Error.ErrCode == codeMessageTooLarge || a.Error.ErrCode == codeHeaderTooLarge:
		return broker.Result{
			Outcome: broker.Rejected, Reason: "the stream answers: " + brief(a.Error.Description),
		}
	}
	return broker.Result{
		Outcome: broker.Retry, Reason: "the stream answers: " + brief(a.Error.Description),
	}
}

// lost ends every flight: the answers to what was sent will not come any more.
func (s *Sink) lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flights {
		f.settleAll(broker.Result{Reason: "the connection to the broker was lost"})
	}
}

// forbidden ends the flights to a subject that the server does not let us publish to: it names the
// subject and drops the messages without an answer.
func (s *Sink) forbidden(err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	text := strings.ToLower(err.Error())
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flights {
		if strings.Contains(text, `publish to "`+strings.ToLower(f.subject)+`"`) {
			f.settleAll(broker.Result{
				Outcome: broker.Retry, Reason: "not permitted to publish to this subject",
			})
		}
	}
}

func (f *flight) settleAll(r broker.Result) {
	for i := range f.known {
		f.settle(i, r)
	}
}

// Close implements broker.Sink.
func (s *Sink) Close() error {
	s.nc.Close()
	return nil
}
