// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
)

// Lease is what a measuring puller needs of one message. The slices alias the reply's buffer.
type Lease struct {
	ID, Receipt []byte
	DueMS       int64
	Attempt     int64
}

var errReply = errors.New("pull: reply is not the expected JSON")

// PullFast pulls into a reused buffer and reads only what a measurement needs: a consumer that
// builds objects of every message is slower than the daemon, and would be what is measured.
// request is the JSON of a PullRequest. The returned buffer is to be given to the next call.
func (c *Client) PullFast(ctx context.Context, queue string, request, buf []byte,
	into []Lease,
) ([]Lease, []byte, error) {
	buf, err := c.Raw(ctx, http.MethodPost, queuePath(queue, "pull"), "application/json", request,
		buf[:0])
	if err != nil {
		return into[:0], buf, err
	}
	into, err = ScanPull(buf, into[:0])
	return into, buf, err
}

// ScanPull reads the reply of a pull, appending to into. Strings with escapes are returned as they
// stand; ids of the bench and receipts have none.
func ScanPull(reply []byte, into []Lease) ([]Lease, error) {
	s := scanner{b: reply}
	ok := s.object(func(name []byte) bool {
		if string(name) != "messages" {
			return s.skip()
		}
		return s.array(func() bool {
			into = append(into, Lease{})
			return s.lease(&into[len(into)-1])
		})
	})
	if s.space(); !ok || s.at != len(s.b) {
		return into, errReply
	}
	return into, nil
}

// scanner is a JSON reader that trusts the sender's syntax only as far as it never reads outside
// of its bytes.
type scanner struct {
	b  []byte
	at int
}

func (s *scanner) lease(l *Lease) bool {
	return s.object(func(name []byte) (ok bool) {
		switch string(name) {
		case "id":
			l.ID, ok = s.str()
		case "receipt":
			l.Receipt, ok = s.str()
		case "due_ms":
			l.DueMS, ok = s.number()
		case "attempt":
			l.Attempt, ok = s.number()
		default:
			ok = s.skip()
		}
		return ok
	})
}

func (s *scanner) space() {
	for s.at < len(s.b) && (s.b[s.at] == ' ' || s.b[s.at] == '\n' || s.b[s.at] == '\r' ||
		s.b[s.at] == '\t') {
		s.at++
	}
}

// take skips white space and then c.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *scanner) object(field func(name []byte) bool) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		name, ok := s.str()
		if !ok || !s.take(':') || !field(name) {
			return false
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) array(item func() bool) bool {
	if !s.take('[') {
		return false
	}
	if s.take(']') {
		return true
	}
	for {
		if !item() {
			return false
		}
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) str() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	start := s.at
	for {
		n := bytes.IndexByte(s.b[s.at:], '"')
		if n < 0 {
			return nil, false
		}
		s.at += n + 1
		slashes := 0
		for i := s.at - 2; i >= start && s.b[i] == '\\'; i-- {
			slashes++
		}
		if slashes%2 == 0 {
			return s.b[start : s.at-1], true
		}
	}
}

func (s *scanner) number() (int64, bool) {
	s.space()
	start := s.at
	for s.at < len(s.b) && (s.b[s.at] >= '0' && s.b[s.at] <= '9' || s.b[s.at] == '-') {
		s.at++
	}
	n, err := strconv.ParseInt(string(s.b[start:s.at]), 10, 64)
	return n, err == nil
}

// skip passes over one value of any kind.
func (s *scanner) skip() bool {
	depth := 0
	for {
		s.space()
		if s.at >= len(s.b) {
			return false
		}
		switch c := s.b[s.at]; c {
		case '"':
			if _, ok := s.str(); !ok {
				return false
			}
		case '{', '[':
			depth++
			s.at++
		case '}', ']':
			depth--
			s.at++
		case ',', ':':
			if depth == 0 {
				return false
			}
			s.at++
			continue
		default:
			if !s.word() {
				return false
			}
		}
		if depth <= 0 {
			return depth == 0
		}
	}
}

// word passes over a number, true, false or null.
func (s *scanner) word() bool {
	start := s.at
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ',', '}', ']', ' ', '\n', '\r', '\t', ':', '"', '{', '[':
			return s.at > start
		}
		s.at++
	}
	return s.at > start
}

// ScanReceipts reads the reply to a batch: the number of accepted messages, and the raw errors of
// the others. The accepted ids are appended to ids unless it is nil.
func ScanReceipts(reply []byte, ids *[]string) (accepted int, bad [][]byte, err error) {
	s := scanner{b: reply}
	item := func() bool {
		start, id, refused := s.at, []byte(nil), false
		ok := s.object(func(name []byte) (ok bool) {
			switch string(name) {
			case "id":
				id, ok = s.str()
			case "error":
				refused, ok = true, s.skip()
			default:
				ok = s.skip()
			}
			return ok
		})
		switch {
		case refused || id == nil:
			bad = append(bad, bytes.TrimSpace(s.b[start:s.at]))
		default:
			accepted++
			if ids != nil {
				*ids = append(*ids, string(id))
			}
		}
		return ok
	}
	ok := s.object(func(name []byte) bool {
		if string(name) != "results" {
			return s.skip()
		}
		return s.array(item)
	})
	if s.space(); !ok || s.at != len(s.b) {
		return accepted, bad, errResults
	}
	return accepted, bad, nil
}

var errResults = errors.New("send: reply is not the expected JSON")

// IsReceipt reports whether line, the reply to one line of a stream, tells of an accepted message.
func IsReceipt(line []byte) bool {
	s := scanner{b: line}
	id, refused := false, false
	ok := s.object(func(name []byte) bool {
		switch string(name) {
		case "id":
			id = true
		case "error":
			refused = true
		}
		return s.skip()
	})
	return ok && id && !refused
}
