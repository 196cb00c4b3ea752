// SPDX-License-Identifier: Apache-2.0

// Package logsink is the broker.Sink of the target log: one line per message, without the body. It
// is for trying Cicada out and for watching what would be delivered.
//
//	Deliver --> "message delivered" id due attempt size key --> zap, or a writer as JSON lines
//
// # Invariants
//
//	G1  A message is Delivered when its line was handed over whole, and Retry when the writer
//	    refused it; a line never holds the body or a header.
//
// A Sink is safe for concurrent use when its writer is. A crash may repeat lines (S6).
package logsink

import (
	"context"
	"encoding/json"
	"io"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// Target is the only target of a Sink.
const Target delay.Target = "log:"

// message is the constant text of every line.
const message = "message delivered"

// Options of a Sink.
type Options struct {
	// Logger gets a line at level info per message, unless Writer is set.
	Logger *zap.Logger
	// Writer gets a JSON object and a line end per message, each in one Write. It must be safe for
	// concurrent use.
	Writer io.Writer
}

// Sink writes messages to a log.
type Sink struct {
	logger *zap.Logger
	writer io.Writer
}

var (
	_ broker.Sink    = (*Sink)(nil)
	_ broker.Checker = (*Sink)(nil)
)

// New is a sink; without a logger and a writer it delivers to nowhere.
func New(opts Options) *Sink {
	s := &Sink{logger: opts.Logger, writer: opts.Writer}
	if s.logger == nil {
		s.logger = zap.NewNop()
	}
	return s
}

// Check implements broker.Checker.
func (s *Sink) Check(target delay.Target) error {
	if target != Target {
		return delay.Invalid("target", "want %s", Target)
	}
	return nil
}

// line is one message in a writer's log.
type line struct {
	Msg     string   `json:"msg"`
	ID      delay.ID `json:"id"`
	Due     string   `json:"due"`
	Attempt uint32   `json:"attempt"`
	Size    int      `json:"size"`
	Key     string   `json:"key,omitempty"`
}

// Deliver writes one line per message until ctx is done.
func (s *Sink) Deliver(ctx context.Context, batch []broker.Delivery, results []broker.Result) {
	for i := range batch {
		if ctx.Err() != nil {
			return
		}
		results[i] = s.write(&batch[i])
	}
}

func (s *Sink) write(d *broker.Delivery) broker.Result {
	if s.writer == nil {
		s.logger.Info(message,
			zap.String("id", string(d.ID)), zap.String("due", d.Due.String()),
			zap.Uint32("attempt", d.Attempt), zap.Int("size", len(d.Body)),
			zap.String("key", d.RoutingKey))
		return broker.Result{Outcome: broker.Delivered}
	}
	b, err := json.Marshal(line{message, d.ID, d.Due.String(), d.Attempt, len(d.Body), d.RoutingKey})
	if err != nil {
		return broker.Result{Outcome: broker.Rejected, Reason: "log: id or key cannot be written"}
	}
	if _, err := s.writer.Write(append(b, '\n')); err != nil {
		return broker.Result{Outcome: broker.Retry, Reason: "log: write failed"}
	}
	return broker.Result{Outcome: broker.Delivered}
}

// Close does nothing: the logger and the writer belong to the caller.
func (s *Sink) Close() error { return nil }
