// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/wire"
)

// Limits of a stream.
const (
	streamBuffer = 256 << 10 // what is read at once, and so the size of a usual batch
	// maxLine holds a message of the largest body in base64, or escaped in part.
	maxLine = 16 << 20
	// maxSpool bounds the replies that wait for a client which reads none before it has sent
	// everything; beyond it the stream waits for the client.
	maxSpool = 64 << 20
	// streamStall is how long a client may neither send nor take a byte.
	streamStall = 5 * time.Minute
	// overloadPause and overloadTries bound how long a stream waits in overload before it answers
	// its lines with it: a stream is slowed down by not being read.
	overloadPause = 50 * time.Millisecond
	overloadTries = 100
)

// stream accepts one message per line and answers each with one line, in order, while lines still
// arrive. Lines that have arrived are accepted together; it never waits for more. Empty lines are
// skipped without an answer.
func (s *Server) stream(c *call) error {
	if err := c.claim(streamBuffer); err != nil {
		return err
	}
	rc := http.NewResponseController(c.w)
	if err := rc.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("stream: %w", err)
	}
	h := c.w.Header()
	h["Content-Type"], h["X-Content-Type-Options"] = ndjsonType, noSniff
	// A client that vanishes does not end the stream: what it had sent is still to be read (W4).
	drained, end, err := s.polls.Begin(c.lasting())
	if err != nil {
		return err
	}
	defer end()
	// A drain ends the stream where it stands, which is in a read.
	defer context.AfterFunc(drained, func() { _ = rc.SetReadDeadline(s.opts.Now()) })()
	if c.Header.Get("Expect") == "" {
		_ = rc.Flush() // a client may wait for the status before it sends
	}
	sp := newSpool(c.w, rc, s)
	var writer sync.WaitGroup
	writer.Go(sp.run)
	defer writer.Wait()
	defer sp.finish()
	l := lines{server: s, call: c, spool: sp, rc: rc}
	l.run()
	return nil
}

// lines reads the lines of one stream.
type lines struct {
	server *Server
	call   *call
	spool  *spool
	rc     *http.ResponseController

	skipping bool // in a line that is too long, until its end
}

// run reads until the end. A line without its newline counts only when the body ended in order: a
// connection that breaks cuts the line it was in (W4).
func (l *lines) run() {
	m := l.call.memory()
	if cap(m.buf) < streamBuffer {
		m.buf = make([]byte, 0, streamBuffer)
	}
	for {
		if len(m.buf) == cap(m.buf) && !l.grow() {
			return
		}
		_ = l.rc.SetReadDeadline(l.server.opts.Now().Add(streamStall)) // or it is not supported
		if l.server.Draining() {
			return
		}
		n, err := l.call.Body.Read(m.buf[len(m.buf):cap(m.buf)])
		fresh := len(m.buf)
		m.buf = m.buf[:fresh+n]
		switch end := bytes.LastIndexByte(m.buf[fresh:], '\n'); {
		case err == io.EOF:
			l.take(m.buf)
			return
		case end >= 0:
			l.take(m.buf[:fresh+end+1])
			m.buf = append(m.buf[:0], m.buf[fresh+end+1:]...)
		}
		if err != nil {
			return
		}
	}
}

// grow makes room in the full buffer, which holds one line that has no end yet.
func (l *lines) grow() bool {
	m := l.call.mem
	if l.skipping || len(m.buf) >= maxLine {
		if !l.skipping {
			l.refuse(fmt.Errorf("%w: a line of more than %d bytes", delay.ErrInvalid, maxLine))
		}
		l.skipping, m.buf = true, m.buf[:0]
		return true
	}
	if err := l.call.claim(int64(cap(m.buf))); err != nil {
		l.refuse(err)
		return false
	}
	bigger := make([]byte, len(m.buf), 2*cap(m.buf))
	copy(bigger, m.buf)
	m.buf = bigger
	return true
}

func (l *lines) refuse(err error) {
	l.server.rejected(err)
	l.spool.put(append(l.server.appendItemError(nil, err), '\n'))
}

// take accepts the lines of b, which are whole.
func (l *lines) take(b []byte) {
	if l.skipping {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			return
		}
		l.skipping, b = false, b[end+1:]
	}
	m := l.call.mem
	now := l.call.shard.Now()
	for len(b) > 0 {
		line := b
		if end := bytes.IndexByte(b, '\n'); end >= 0 {
			line, b = b[:end], b[end+1:]
		} else {
			b = nil
		}
		if len(bytes.Trim(line, " \t\r")) == 0 {
			continue
		}
		m.batch.Add(func(draft *delay.Draft) error { return m.dec.One(line, now, draft) })
		if len(m.batch.Errs) == wire.MaxBatch {
			l.flush()
		}
	}
	l.flush()
}

// flush accepts the batch and answers its lines.
func (l *lines) flush() {
	m := l.call.mem
	if len(m.batch.Errs) == 0 {
		return
	}
	if err := l.accept(m); err != nil { // of the call: nothing of it was stored
		for i := range m.receipts {
			m.receipts[i].Err = err
		}
	}
	m.out = l.server.appendResults(m.out[:0], m, '\n')
	l.spool.put(m.out)
	m.batch.Reset()
	m.dec.Reset()
}

// accept waits out short overloads.
func (l *lines) accept(m *work) error {
	ctx := l.call.lasting()
	err := l.server.accept(ctx, l.call.shard, m)
	for try := 0; errors.Is(err, delay.ErrOverloaded) && try < overloadTries; try++ {
		if !pause(l.call.Context(), overloadPause) {
			return err
		}
		err = l.call.shard.Accept(ctx, m.batch.Drafts, m.receipts)
	}
	return err
}

// pause waits d and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// spool holds the replies of a stream until the client takes them, so that a client which sends
// everything before it reads is not waited for.
type spool struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	server *Server

	mu       sync.Mutex
	changed  *sync.Cond
	pending  []byte
	finished bool // nothing more comes
	failed   bool // the client takes no more
}

func newSpool(w http.ResponseWriter, rc *http.ResponseController, server *Server) *spool {
	s := &spool{w: w, rc: rc, server: server}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// put adds replies, waiting while too many are pending. What a client that has gone would have got
// is dropped.
func (s *spool) put(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.full() && !s.failed {
		s.changed.Wait()
	}
	if !s.failed {
		s.pending = append(s.pending, b...)
		s.server.inflight.Add(int64(len(b)))
		s.changed.Broadcast()
	}
}

// full is called with the lock held. Replies that wait count as bytes in flight (W5).
func (s *spool) full() bool {
	n := len(s.pending)
	return n >= maxSpool ||
		n >= streamBuffer && s.server.inflight.Full()
}

// finish ends run once everything is written.
func (s *spool) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	s.changed.Broadcast()
}

// run writes what is pending until the end.
func (s *spool) run() {
	var batch []byte
	for {
		s.mu.Lock()
		for len(s.pending) == 0 && !s.finished {
			s.changed.Wait()
		}
		batch, s.pending = s.pending, batch[:0]
		done := s.finished && len(batch) == 0
		s.changed.Broadcast()
		s.mu.Unlock()
		if done {
			return
		}
		ok := s.write(batch)
		s.server.inflight.Release(int64(len(batch)))
		if !ok {
			s.mu.Lock()
			s.server.inflight.Release(int64(len(s.pending)))
			s.failed, s.pending = true, nil
			s.changed.Broadcast()
			s.mu.Unlock()
			return
		}
		if cap(batch) > keepBytes {
			batch = nil
		}
	}
}

// write sends b in pieces, each within streamStall.
func (s *spool) write(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), keepBytes)
		_ = s.rc.SetWriteDeadline(s.server.opts.Now().Add(streamStall)) // or it is not supported
		if _, err := s.w.Write(b[:n]); err != nil {
			return false
		}
		if err := s.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return false
		}
		b = b[n:]
	}
	return true
}
