// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
)

// sinkShard accepts everything and keeps nothing: what is left is the front end's own cost.
type sinkShard struct{ *fakeShard }

func (sinkShard) Accept(_ context.Context, drafts []delay.Draft, receipts []scheduler.Receipt) error {
	for i := range drafts {
		receipts[i] = scheduler.Receipt{ID: drafts[i].ID, Due: drafts[i].Due, Generation: 1}
	}
	return nil
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

func benchLines(n int, format string) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, format, i, strings.Repeat("x", 150))
	}
	return b.Bytes()
}

func benchSend(b *testing.B, body []byte, n int, kind string) {
	s := New(sinkShard{newFake()}, Options{})
	w := discard{http.Header{}}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		req := httptest.NewRequest(http.MethodPost, "/v1/messages", bytes.NewReader(body))
		req.Header.Set("Content-Type", kind)
		s.Handler().ServeHTTP(w, req)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/msg")
}

// A batch of 100 from bytes to bytes, routing included.
func BenchmarkSend100(b *testing.B) {
	lines := benchLines(100, `{"id":"o-%d","target":"pull:orders","delay":"10m","body":"%s"},`)
	body := append([]byte(`{"messages":[`), lines[:len(lines)-1]...)
	benchSend(b, append(body, `]}`...), 100, "application/json")
}

// A stream of 10,000 lines.
func BenchmarkStream10000(b *testing.B) {
	body := benchLines(10_000, `{"id":"o-%d","target":"pull:orders","delay":"10m","body":"%s"}`+"\n")
	benchSend(b, body, 10_000, "application/x-ndjson")
}
