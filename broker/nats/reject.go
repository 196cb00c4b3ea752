// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
)

// The headers of a rejected record, beside its own.
const (
	headerError   = "cicada-error"
	headerSource  = "cicada-source"  // the partition and the sequence
	headerSubject = "cicada-subject" // where it was published to
	headerCut     = "cicada-cut"     // "body": it was left out, the record is too large with it

	wasPrefix = "was-" // before the names of headers that would be orders to the server (N2)
)

// reject passes a record that is no request, or that the shard refused, to the reject subject, and
// lets the source go on (B6). An error says that the connection has to be made again first.
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
		return err
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
	source := fmt.Sprintf("%s/%d", r.partition, seq)
	h := nats.Header{
		msgID: {"rejected:" + source}, headerError: {why}, headerSource: {source},
		headerSubject: {m.Subject},
	}
	for name, values := range m.Header {
		if owned(name) {
			name = wasPrefix + name
		}
		h[name] = values
	}
	out := &nats.Msg{Subject: r.sc.RejectSubject, Header: h, Data: m.Data}
	res, err := r.request(ctx, out)
	if err != nil || res.Outcome != broker.Rejected {
		return res, err
	}
	out.Data = nil
	h[headerCut] = []string{"body"}
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

// controls reports whether a header is an order to a server or a client, not the user's.
func controls(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, "nats-") || lower == "status" || lower == "description"
}
