// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

const (
	pullExpires   = 10 * time.Second
	pullHeartbeat = 2 * time.Second
	maxQuiet      = 3          // heartbeats that may be missed
	statusRoom    = 64         // in the channel, for what is no record
	maxRecord     = 128 << 20  // twice what a server can be configured for
	ackSubject    = "$JS.ACK." // the reply subject of every record, and of nothing else
	pullSubject   = "$JS.API.CONSUMER.MSG.NEXT."
	frameBytes    = 1 << 10 // what a server counts of a record beside its body and headers
)

// puller asks for records and hands them on in their order. It does not use the library's own
// loop, to which a record without a body whose header says "Status" looks like an answer of the
// server: one such record would stop a stream for ever (B6).
type puller struct {
	nc      *nats.Conn
	subject string
	inbox   string // with its last dot; each request has an answer subject of its own below it
	in      chan *nats.Msg
	out     chan []*nats.Msg

	maxBytes int
	request  int    // the number of the request under way
	answers  string // its subject
}

// run pulls until ctx is done or the session has to begin again.
func (p *puller) run(ctx context.Context) error {
	var held []*nats.Msg
	size := 0
	tick := time.NewTicker(pullHeartbeat)
	defer tick.Stop()
	left, quiet := 0, 0
	for {
		in, out := p.in, p.out
		switch {
		case len(held) == 0:
			out = nil
		case len(held) >= broker.MaxBatch || size >= p.maxBytes:
			in = nil // wait until these are taken (N6)
		}
		if left == 0 && in != nil {
			if err := p.ask(); err != nil {
				return err
			}
			left = broker.MaxBatch
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case out <- held:
			held, size, quiet = nil, 0, 0
		case <-tick.C:
			if quiet++; quiet > maxQuiet && in != nil {
				return errors.New("the server is silent")
			}
		case m := <-in:
			quiet = 0
			if strings.HasPrefix(m.Reply, ackSubject) {
				left--
				held, size = append(held, m), size+m.Size()
				continue
			}
			over, err := p.status(m, left)
			if err != nil {
				return err
			}
			if over {
				left = 0
			}
		}
	}
}

// ask sends one request for records. An earlier one is over by then, but the server's word for that
// may still be on its way: it comes to another subject.
func (p *puller) ask() error {
	body, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		MaxBytes  int           `json:"max_bytes"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{broker.MaxBatch, pullExpires, p.maxBytes, pullHeartbeat})
	if err != nil {
		return fmt.Errorf("write a pull request: %w", err)
	}
	p.request++
	p.answers = p.inbox + strconv.Itoa(p.request)
	if err := p.nc.PublishRequest(p.subject, p.answers, body); err != nil {
		return fmt.Errorf("ask for records: %w", err)
	}
	return nil
}

// status reads what the server says about the request, of which left records had not come: over
// when it has ended.
func (p *puller) status(m *nats.Msg, left int) (over bool, err error) {
	text := m.Header.Get("Description")
	switch code := m.Header.Get("Status"); {
	case code == "100" || m.Subject != p.answers: // a heartbeat; an earlier request
		return false, nil
	case code == "404" || code == "408" || strings.Contains(text, "Batch Completed"):
		return true, nil
	case strings.Contains(text, "MaxBytes"):
		if left == broker.MaxBatch { // not one fitted
			if p.maxBytes >= maxRecord {
				return true, fmt.Errorf("ask for records: one is larger than %d bytes", maxRecord)
			}
			p.maxBytes = min(2*p.maxBytes, maxRecord)
		}
		return true, nil
	default:
		return true, fmt.Errorf("ask for records: %s %s", code, brief(text))
	}
}

// delivery is what the reply subject of a record says.
type delivery struct {
	times    uint64    // how often it was delivered, from 1
	stream   uint64    // its sequence
	consumer uint64    // the number of the delivery
	stored   delay.Due // when the stream got it
	pending  uint64    // records that wait behind it
}

// parseDelivery reads $JS.ACK.<stream>.<consumer>.<times>.<stream seq>.<consumer seq>.<time>.
// <pending>, with a domain and an account hash before the stream and more behind in newer servers.
func parseDelivery(reply string) (d delivery, ok bool) {
	const short, long, behindDomain = 9, 11, 2
	f := strings.Split(reply, ".")
	if len(f) >= long {
		f = f[behindDomain:]
	} else if len(f) != short {
		return d, false
	}
	ok = true
	number := func(i int) uint64 {
		n, err := strconv.ParseUint(f[i], 10, 64)
		ok = ok && err == nil
		return n
	}
	d = delivery{times: number(4), stream: number(5), consumer: number(6), pending: number(8)}
	const round = uint64(time.Millisecond) // up, as a delay is: it must not end early
	d.stored = delay.Due((number(7) + round - 1) / round)
	return d, ok && d.stream > 0
}
