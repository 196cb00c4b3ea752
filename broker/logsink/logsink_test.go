// SPDX-License-Identifier: Apache-2.0

package logsink

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
	"github.com/cicadamq/cicada/delay"
)

// The suite's promises hold for the log as for every sink.
func TestConformance(t *testing.T) {
	brokertest.Run(t, func(*testing.T) brokertest.Subject {
		return brokertest.Subject{Sink: New(Options{}), Target: Target}
	})
}

var sample = broker.Delivery{
	ID: "id-1", Target: Target, Due: 1_800_000_000_123, Attempt: 2, RoutingKey: "k\"\n",
	Headers: []delay.Header{{Name: "secret", Value: "canary"}}, Body: []byte("canary"),
}

// A line must name the message and must not hold its body or headers (G1).
func TestZapLine(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	results := make([]broker.Result, 1)
	New(Options{Logger: zap.New(core)}).Deliver(t.Context(), []broker.Delivery{sample}, results)
	require.Equal(t, broker.Delivered, results[0].Outcome)
	require.Equal(t, 1, logs.Len())
	require.Equal(t, "message delivered", logs.All()[0].Message)
	require.Equal(t, map[string]any{
		"id": "id-1", "due": "2027-01-15T08:00:00.123Z", "attempt": uint32(2), "size": int64(6),
		"key": "k\"\n",
	}, logs.All()[0].ContextMap())
}

// A key with a line end must not make two lines.
func TestWriterLine(t *testing.T) {
	var out bytes.Buffer
	results := make([]broker.Result, 2)
	New(Options{Writer: &out}).Deliver(t.Context(), []broker.Delivery{sample, sample}, results)
	const want = `{"msg":"message delivered","id":"id-1","due":"2027-01-15T08:00:00.123Z",` +
		`"attempt":2,"size":6,"key":"k\"\n"}` + "\n"
	require.Equal(t, strings.Repeat(want, 2), out.String())
	require.Equal(t, broker.Delivered, results[1].Outcome)
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// A line that was not written is not delivered (B2).
func TestWriterFails(t *testing.T) {
	results := make([]broker.Result, 1)
	New(Options{Writer: failing{}}).Deliver(t.Context(), []broker.Delivery{sample}, results)
	require.Equal(t, broker.Result{Outcome: broker.Retry, Reason: "log: write failed"}, results[0])
}

// Only the one target is right.
func TestCheck(t *testing.T) {
	s := New(Options{})
	require.NoError(t, s.Check("log:"))
	var field *delay.FieldError
	require.ErrorAs(t, s.Check("log:x"), &field)
	require.Equal(t, "target", field.Field)
}
