// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/intake"
)

const (
	// wasPrefix stands before the names of a rejected record's headers that would be orders to the
	// server, or to a client (N2), and before subject.
	wasPrefix = "was-"
	cutNote   = " (the body is left out: the record is too large with it)"
)

// errConnection says that the connection has to be made again before anything else.
var errConnection = errors.New("the reject subject does not answer")

// reject passes a record that is no request, or that the shard refused, to the reject subject, and
// lets the source go on (B6). An error is errConnection.
func (r *session) reject(ctx context.Context, m *nats.Msg, at int, why error) error {
	text := refusal(why)
	r.open[at].why = text
	r.n.refused.Add(1)
	log := r.log.With(zap.Uint64("seq", r.open[at].seq), zap.String("reason", text))
	if r.sc.RejectSubject == "" {
		log.Warn("a record was refused")
		return nil
	}
	answer, err := r.publishRejected(ctx, m, r.open[at].seq, text)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errConnection, err)
	case answer.Outcome != broker.Delivered:
		log.Error("a record was refused, and the reject subject does not take it",
			zap.String("subject", r.sc.RejectSubject), zap.String("answer", answer.Reason))
	default:
		r.n.rejected.Add(1)
	}
	return nil
}

// publishRejected publishes the record, at last without its body: what is left says where it is.
func (r *session) publishRejected(
	ctx context.Context, m *nats.Msg, seq uint64, why string,
) (broker.Result, error) {
	h := make(nats.Header, len(m.Header)+4)
	for name, values := range m.Header {
		if controls(name) {
			name = wasPrefix + name
		}
		h[name] = values
	}
	source := fmt.Sprintf("%s/%d", r.partition, seq)
	h[msgID] = []string{"rejected:" + source}
	h[intake.HeaderError], h[intake.HeaderSource] = []string{why}, []string{source}
	h[wasPrefix+"subject"] = []string{m.Subject}
	out := &nats.Msg{Subject: r.sc.RejectSubject, Header: h, Data: m.Data}
	res, err := r.request(ctx, out)
	if err != nil || res.Outcome != broker.Rejected {
		return res, err
	}
	out.Data, h[intake.HeaderError] = nil, []string{why + cutNote}
	return r.request(ctx, out)
}

// request publishes one message and waits for the stream's answer.
func (r *session) request(ctx context.Context, m *nats.Msg) (broker.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.AckTimeout)
	defer cancel()
	reply, err := r.nc.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return broker.Result{Outcome: broker.Rejected, Reason: "larger than max_payload"}, nil
	case errors.Is(err, nats.ErrNoResponders):
		return broker.Result{Outcome: broker.Retry, Reason: "no stream holds this subject"}, nil
	case err != nil:
		return broker.Result{}, fmt.Errorf("publish to %s: %w", m.Subject, err)
	}
	return answer(reply), nil
}
