// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/audit"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/scheduler"
)

// source is the label of what the front end counts.
const source = "api"

// work is the memory of a request. It is pooled, and grows with what it served, up to keepBytes.
type work struct {
	buf, out []byte
	dec      wire.Decoder
	batch    wire.Batch
	receipts []scheduler.Receipt
	results  []scheduler.SettleResult
}

const (
	keepBytes   = 1 << 20 // of a buffer that goes back into the pool
	keepItems   = 2_000   // likewise, of messages
	firstBuffer = 8 << 10
)

// call is one request of the JSON API.
type call struct {
	*http.Request
	w        http.ResponseWriter
	server   *Server
	params   url.Values
	mem      *work
	reserved int64 // of Server.inflight

	caller *access.Caller
	shard  access.Shard // as the caller may see it, once admitted (W6)
	change audit.Entry  // what the handler tells of it
}

// memory is the call's pooled memory.
func (c *call) memory() *work {
	if c.mem == nil {
		c.mem = c.server.works.Get().(*work)
	}
	return c.mem
}

// claim counts n more bytes in flight, or refuses (W5).
func (c *call) claim(n int64) error {
	err := c.server.inflight.Claim(n)
	if err == nil {
		c.reserved += n
	}
	return err
}

// release gives back what the call holds. Nothing may alias its memory any more.
func (c *call) release() {
	c.server.inflight.Release(c.reserved)
	c.reserved = 0
	m := c.mem
	if m == nil {
		return
	}
	c.mem = nil
	m.dec.Reset()
	m.batch.Reset()
	clear(m.receipts)
	m.receipts, m.results = m.receipts[:0], m.results[:0]
	if cap(m.buf) > keepBytes || cap(m.out) > keepBytes || cap(m.batch.Drafts) > keepItems {
		return
	}
	m.buf, m.out = m.buf[:0], m.out[:0]
	c.server.works.Put(m)
}

// body reads the request's body into the call's memory.
func (c *call) body(limit int) ([]byte, error) {
	if e := c.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, fmt.Errorf("%w: content-encoding %.20q is not known", delay.ErrInvalid, e)
	}
	if c.ContentLength > int64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", delay.ErrInvalid, c.ContentLength, limit)
	}
	m := c.memory()
	m.buf = m.buf[:0]
	if c.ContentLength == 0 {
		return m.buf, nil
	}
	// One more than announced, to see the end at once; but memory only follows what arrives, since
	// an announcement costs a client nothing.
	want := min(max(int(c.ContentLength)+1, firstBuffer), keepBytes)
	for {
		if err := c.claim(int64(want)); err != nil {
			return nil, err
		}
		m.buf = slices.Grow(m.buf, want)
		for len(m.buf) < cap(m.buf) {
			n, err := c.Body.Read(m.buf[len(m.buf):cap(m.buf)])
			m.buf = m.buf[:len(m.buf)+n]
			if err == io.EOF {
				return m.buf, c.sizeOK(limit)
			}
			if err != nil {
				return nil, fmt.Errorf("%w: body: %w", delay.ErrInvalid, err)
			}
		}
		if err := c.sizeOK(limit); err != nil {
			return nil, err
		}
		want = min(len(m.buf), limit+1-len(m.buf))
		if left := int(c.ContentLength) + 1 - len(m.buf); left > 0 {
			want = min(want, left)
		}
	}
}

func (c *call) sizeOK(limit int) error {
	if len(c.mem.buf) > limit {
		return fmt.Errorf("%w: more than %d bytes", delay.ErrInvalid, limit)
	}
	return nil
}

// lasting is the context of work that must not stop half-way because a client has gone: its
// outcome is asked for again (S2, S4). The shard bounds its time.
func (c *call) lasting() context.Context { return context.WithoutCancel(c.Context()) }

// id is the message's id in the path; ServeMux has decoded it.
func (c *call) id() (delay.ID, error) {
	id := delay.ID(c.PathValue("id"))
	return id, wire.CheckID(id)
}

// number is a query parameter in [1, most].
func (c *call) number(name string, most, otherwise int) (int, error) {
	if !c.params.Has(name) {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(c.params.Get(name), 10, 31)
	if err != nil || n < 1 || int(n) > most {
		return 0, delay.Invalid(name, "want 1 to %d", most)
	}
	return int(n), nil
}

// flag is a query parameter true or false.
func (c *call) flag(name string) (bool, error) {
	switch v := c.params.Get(name); {
	case !c.params.Has(name), v == "false":
		return false, nil
	case v == "true":
		return true, nil
	}
	return false, delay.Invalid(name, "want true or false")
}

// instant is a query parameter; 0 when it is not given.
func (c *call) instant(name string) (delay.Due, error) {
	if !c.params.Has(name) {
		return 0, nil
	}
	due, err := wire.ParseInstant(c.params.Get(name))
	if err != nil {
		return 0, wire.Reason(name, err)
	}
	return due, nil
}

// filter is the filter that the query describes.
func (c *call) filter() (f scheduler.Filter, err error) {
	for _, name := range filterParams {
		if c.params.Has(name) {
			if err := wire.SetFilter(&f, name, c.params.Get(name)); err != nil {
				return f, err
			}
		}
	}
	return f, nil
}

// reply answers 200 with what was appended to the call's out buffer.
func (c *call) reply(out []byte) {
	c.memory().out = out
	writeJSON(c.w, http.StatusOK, out)
}

// isStream reports whether the body is one message per line.
func (c *call) isStream() bool {
	kind, _, _ := strings.Cut(c.Header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		return true
	}
	return false
}

// ended reports whether err is only that the caller or a drain ended a wait.
func ended(err error) bool { return errors.Is(err, context.Canceled) }
