// SPDX-License-Identifier: Apache-2.0

package tierview

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/segment"
)

// Dump says what to show of the messages in the bucket.
type Dump struct {
	Names []string // objects; none: whatever is not finished, kept messages first
	Key   string   // only this key, in every object: instant/epoch.counter
	Body  bool     // with bodies
}

// record is a message in the JSON formats.
type record struct {
	ID         string            `json:"id"`
	Object     string            `json:"object,omitempty"`
	Key        string            `json:"position"`
	Due        string            `json:"due"`
	DueMS      int64             `json:"due_ms"`
	Target     string            `json:"target"`
	RoutingKey string            `json:"key,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Size       int               `json:"size"`
	Generation uint32            `json:"generation"`
	AcceptedAt string            `json:"accepted_at"`
	State      string            `json:"state,omitempty"` // of kept messages
	Attempts   uint32            `json:"attempts,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	LastError  string            `json:"last_error,omitempty"`
	Finished   bool              `json:"finished"` // a mark or a bulk cancel says so
	Body       *string           `json:"body,omitempty"`
	BodyBase64 *string           `json:"body_base64,omitempty"`
}

// mark is a mark in the JSON formats.
type mark struct {
	ID      string `json:"id,omitempty"`
	Object  string `json:"object"`
	Key     string `json:"position,omitempty"`
	State   string `json:"state"`
	At      string `json:"at"`
	Forward string `json:"moved_to,omitempty"`
}

// dumpPage bounds the rows that are held at once.
const dumpPage = 1000

// pages collects rows and gives them on, a page at a time.
type pages struct {
	Table
	emit func(*Table) error
	err  error
}

func (p *pages) row(id string, value any, cells ...string) bool {
	p.add(id, value, cells...)
	if len(p.Rows) >= dumpPage {
		p.flush()
	}
	return p.err == nil
}

func (p *pages) flush() {
	if p.err != nil || len(p.Rows) == 0 {
		return
	}
	p.err = p.emit(&p.Table)
	p.Rows = p.Rows[:0]
	p.Columns = make([]string, len(p.Columns)) // the head comes once
}

// Records shows messages as emit is given them, page by page.
func (v *View) Records(ctx context.Context, d Dump, emit func(*Table) error) error {
	p := &pages{emit: emit, Table: Table{
		Columns: []string{"ID", "DUE", "TARGET", "SIZE", "FINISHED", "OBJECT"},
	}}
	if err := v.finished(ctx); err != nil {
		return err
	}
	err := v.dump(ctx, &d, p)
	p.flush()
	return errors.Join(err, p.err)
}

func (v *View) dump(ctx context.Context, d *Dump, p *pages) error {
	lower, upper := delay.Key{}, delay.MaxKey
	if d.Key != "" {
		k, err := parseKey(d.Key)
		if err != nil {
			return err
		}
		lower, upper = k, k.Next()
	}
	switch {
	case len(d.Names) > 0:
		for _, name := range d.Names {
			o, err := v.find(name)
			if err == nil {
				err = v.dumpObject(ctx, &o, d, lower, upper, p)
			}
			if err != nil {
				return err
			}
		}
		return nil
	case d.Key != "":
		for _, o := range v.listed() {
			if !o.MayHold(lower) {
				continue
			}
			if err := v.dumpObject(ctx, &o, d, lower, upper, p); err != nil {
				return err
			}
		}
		return nil
	}
	var bad error
	err := v.Tier.ScanKept(ctx, func(k delay.Kept) (more bool) {
		if v.marked[k.Key] {
			return true
		}
		more, bad = v.message(p, d, k.Key, k.Record, &k.Progress, "")
		return more
	})
	if err = errors.Join(err, bad); err != nil || p.err != nil {
		return err
	}
	err = v.Tier.Scan(ctx, v.State.Watermark, upper, func(k delay.Key, rec []byte) (more bool) {
		if v.gone(k, rec) {
			return true
		}
		more, bad = v.message(p, d, k, rec, nil, "")
		return more
	})
	return errors.Join(err, bad)
}

func (v *View) dumpObject(
	ctx context.Context, o *object, d *Dump, lower, upper delay.Key, p *pages,
) error {
	if o.kind == "marks" {
		return v.marks(ctx, o, func(m delay.Mark) bool {
			if m.Key.Less(lower) || !m.Key.Less(upper) {
				return true
			}
			return v.markRow(p, o, &m)
		})
	}
	var bad error
	err := v.items(ctx, o, lower, upper, func(it segment.Item) bool {
		var more bool
		rec, progress := it.Record, (*delay.Progress)(nil)
		if o.kind == "kept" {
			var k delay.Kept
			if k, bad = it.Kept(); bad != nil {
				return false
			}
			rec, progress = k.Record, &k.Progress
		}
		more, bad = v.message(p, d, it.Key, rec, progress, o.Name)
		return more
	})
	return errors.Join(err, bad)
}

func (v *View) message(
	p *pages, d *Dump, k delay.Key, rec []byte, progress *delay.Progress, object string,
) (more bool, err error) {
	m, err := delay.DecodeRecord(rec)
	if err != nil {
		return false, fmt.Errorf("message %s: %w", k, err)
	}
	id := m.ID
	if id == "" {
		id = v.ids.Make(v.State.Shard, k)
	}
	r := record{
		ID: string(id), Object: object, Key: k.String(), Due: m.Due.String(), DueMS: int64(m.Due),
		Target: string(m.Target), RoutingKey: m.RoutingKey, Size: len(m.Body),
		Generation: m.Generation, AcceptedAt: m.AcceptedAt.String(), Finished: v.gone(k, rec),
	}
	if progress != nil {
		r.Finished = v.marked[k]
	}
	for _, h := range m.Headers {
		if r.Headers == nil {
			r.Headers = make(map[string]string, len(m.Headers))
		}
		r.Headers[h.Name] = h.Value
	}
	if progress != nil {
		r.State, r.Attempts = progress.State.String(), progress.Attempts
		r.Reason, r.LastError = progress.Reason, progress.LastError
	}
	if d.Body {
		text := string(m.Body)
		if utf8.ValidString(text) {
			r.Body = &text
		} else {
			text = base64.StdEncoding.EncodeToString(m.Body)
			r.BodyBase64 = &text
		}
	}
	return p.row(r.ID, r, r.ID, r.Due, r.Target, strconv.Itoa(r.Size),
		strconv.FormatBool(r.Finished), or(object, "-")), nil
}

func (v *View) markRow(p *pages, o *object, m *delay.Mark) bool {
	r := mark{ID: m.ID, Object: o.Name, State: m.State.String(), At: m.At.String()}
	due := "-"
	if !m.Key.IsZero() {
		r.Key, due = m.Key.String(), m.Key.Due.String()
	}
	if m.State == delay.Scheduled {
		r.State, r.Forward = "moved", m.Forward.String()
	}
	return p.row(or(r.ID, r.Key), r, or(r.ID, r.Key), due, "mark: "+r.State, "0", "true", o.Name)
}

// parseKey reads what delay.Key prints: instant/epoch.counter.
func parseKey(s string) (delay.Key, error) {
	instant, seq, ok := strings.Cut(s, "/")
	epoch, counter, dot := strings.Cut(seq, ".")
	due, err1 := strconv.ParseInt(instant, 10, 64)
	e, err2 := strconv.ParseUint(epoch, 10, 32)
	n, err3 := strconv.ParseUint(counter, 10, 64)
	if ok && dot && errors.Join(err1, err2, err3) == nil && due >= 0 &&
		delay.Epoch(e) <= delay.MaxEpoch && n <= delay.MaxCounter {
		k := delay.Key{Due: delay.Due(due), Seq: delay.MakeSeq(delay.Epoch(e), n)}
		if k.String() == s {
			return k, nil
		}
	}
	return delay.Key{}, delay.Invalid("key", "%q is not instant/epoch.counter, such as %s", s,
		delay.Key{Due: 1_800_000_000_000, Seq: delay.MakeSeq(3, 17)})
}
