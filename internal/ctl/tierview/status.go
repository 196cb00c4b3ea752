// SPDX-License-Identifier: Apache-2.0

package tierview

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// tooShort is the time after which a rate of requests says something about a month.
const tooShort = 10 * time.Minute

// Reply is GET /v1/tier, as far as it is shown.
type Reply struct {
	Bucket   string `json:"bucket"`
	SameDisk bool   `json:"same_disk"`
	Cluster  string `json:"cluster"`
	Shard    int    `json:"shard"`
	Epoch    uint32 `json:"epoch"`
	Manifest struct {
		Version     uint64 `json:"version"`
		WrittenAt   string `json:"written_at"`
		WrittenAtMS int64  `json:"written_at_ms"`
		Bytes       int64  `json:"bytes"`
		NotUploaded int64  `json:"not_uploaded"`
	} `json:"manifest"`
	Probe *struct {
		At    string `json:"at"`
		Steps []Step `json:"steps"`
	} `json:"probe"`
	Levels  []Level `json:"levels"`
	Deletes struct {
		Objects int    `json:"objects"`
		Next    string `json:"next"`
	} `json:"pending_deletes"`

	OldestNotUploaded float64 `json:"oldest_not_uploaded_seconds"`
	LastFlush         string  `json:"last_flush"`
	LastFlushError    string  `json:"last_flush_error"`

	Classes  []Class  `json:"classes"`
	Requests Requests `json:"requests"`
	Clock    *struct {
		AheadMS int64  `json:"system_ahead_ms"`
		At      string `json:"at"`
	} `json:"store_clock"`
}

// Step is one promise of the store that was tried.
type Step struct {
	Name   string `json:"name"`
	Tried  string `json:"tried"`
	Kept   bool   `json:"kept"`
	Needed bool   `json:"needed"`
}

// Level sums up the objects of one kind and level.
type Level struct {
	Kind     string `json:"kind"`
	Level    int    `json:"level"`
	Objects  int64  `json:"objects"`
	Items    int64  `json:"items"`
	Bytes    int64  `json:"bytes"`
	Stored   int64  `json:"stored_bytes"`
	FirstDue string `json:"first_due"`
	LastDue  string `json:"last_due"`
	Oldest   string `json:"oldest"`
}

// Class tells how requests of one urgency do.
type Class struct {
	Class   string `json:"class"`
	Paused  bool   `json:"paused"`
	Since   string `json:"since"`
	Limit   int    `json:"limit"`
	Waiting int    `json:"waiting"`
}

// Requests are what the bucket was asked since the start.
type Requests struct {
	Since    string  `json:"since"`
	Seconds  float64 `json:"seconds"`
	Accepted int64   `json:"accepted"`
	Counts   []struct {
		Op    string `json:"op"`
		Code  string `json:"code"`
		Count int64  `json:"count"`
	} `json:"counts"`
}

// Figures are computed from a Reply.
type Figures struct {
	Requests    int64    `json:"requests"`
	PerThousand *float64 `json:"requests_per_1000_messages"` // null: no messages
	Stored      int64    `json:"stored_bytes"`
	PerByte     *float64 `json:"stored_bytes_per_message_byte"` // null: no segments
}

// Status shows a reply of GET /v1/tier, with the figures and the bill that follow from it: as a
// table, and the whole as JSON.
func Status(raw json.RawMessage, p Prices, now time.Time) (*Table, json.RawMessage, error) {
	var r Reply
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, nil, fmt.Errorf("tier status: %w", err)
	}
	usage := r.usage()
	figures, bill := r.figures(usage), BillOf(usage, p)
	whole, err := appendFields(raw, map[string]any{"figures": figures, "bill": bill})
	if err != nil {
		return nil, nil, fmt.Errorf("tier status: %w", err)
	}
	t := &Table{}
	r.place(t, now)
	r.objects(t)
	r.flushes(t)
	r.asked(t, figures)
	bill.show(t, usage)
	return t, whole, nil
}

// appendFields adds fields at the end of a JSON object, in the order of their names.
func appendFields(object json.RawMessage, fields map[string]any) (json.RawMessage, error) {
	more, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	head := bytes.TrimSuffix(bytes.TrimSpace(object), []byte("}"))
	if len(head) > 1 {
		head = append(slices.Clone(head), ',')
	}
	return slices.Concat(head, more[1:]), nil
}

// isPut and isGet sort requests by what they cost; deletes cost nothing.
func isPut(op string) bool { return op == "put" || op == "put_if" || op == "list" }
func isGet(op string) bool { return op == "get" || op == "get_range" }

func (r *Reply) usage() Usage {
	u := Usage{
		Stored: r.Manifest.Bytes, Over: time.Duration(r.Requests.Seconds * float64(time.Second)),
	}
	for _, l := range r.Levels {
		u.Stored += l.Stored
	}
	for _, c := range r.Requests.Counts {
		switch {
		case isPut(c.Op):
			u.Puts += c.Count
		case isGet(c.Op):
			u.Gets += c.Count
		}
	}
	return u
}

func (r *Reply) figures(u Usage) Figures {
	f := Figures{Stored: u.Stored}
	for _, c := range r.Requests.Counts {
		f.Requests += c.Count
	}
	if r.Requests.Accepted > 0 {
		per := round(float64(f.Requests) * 1000 / float64(r.Requests.Accepted))
		f.PerThousand = &per
	}
	var stored, raw int64
	for _, l := range r.Levels {
		if l.Kind == "segment" {
			stored, raw = stored+l.Stored, raw+l.Bytes
		}
	}
	if raw > 0 {
		per := round(float64(stored) / float64(raw))
		f.PerByte = &per
	}
	return f
}

func (r *Reply) place(t *Table, now time.Time) {
	t.pair("bucket", "%s", r.Bucket)
	if r.SameDisk {
		t.pair("", "on the disk of the local store: it survives no disk loss")
	}
	t.pair("cluster", "%s", r.Cluster)
	t.pair("owner", "shard %d, epoch %d", r.Shard, r.Epoch)
	m := r.Manifest
	if m.Version == 0 {
		t.pair("manifest", "none")
	} else {
		t.pair("manifest", "version %s, %s, written %s, %s ago", count(int64(m.Version)),
			Size(m.Bytes), m.WrittenAt, Span(now.Sub(time.UnixMilli(m.WrittenAtMS))))
	}
	switch {
	case r.Probe == nil && strings.HasPrefix(r.Bucket, "file:"):
		t.pair("store", "not tried out: conditional writes to files are our own")
	case r.Probe == nil:
		t.pair("store", "not tried out yet")
	default:
		t.pair("store", "fit, tried out %s", r.Probe.At)
		for _, s := range r.Probe.Steps {
			t.pair("  "+s.Name, "%s: %s", verdict(s), s.Tried)
		}
	}
	if c := r.Clock; c != nil {
		t.pair("system clock", "%s of the store's, at %s",
			Ahead(time.Duration(c.AheadMS)*time.Millisecond), c.At)
	}
}

func verdict(s Step) string {
	switch {
	case s.Kept:
		return "kept"
	case s.Needed:
		return "BROKEN"
	default:
		return "not kept, not needed"
	}
}

func (r *Reply) objects(t *Table) {
	for _, l := range r.Levels {
		items, name := "message", "segments, level "+fmt.Sprint(l.Level)
		switch l.Kind {
		case "kept":
			name = "kept segments"
		case "marks":
			name, items = "marks", "mark"
		}
		text := fmt.Sprintf("%s, %s, %s", plural(l.Objects, "object"), plural(l.Items, items),
			Size(l.Stored))
		if l.FirstDue != "" {
			text += fmt.Sprintf(", due %s to %s", l.FirstDue, l.LastDue)
		}
		t.pair(name, "%s, oldest of %s", text, l.Oldest)
	}
	if len(r.Levels) == 0 {
		t.pair("segments", "none")
	}
	text := plural(int64(r.Deletes.Objects), "object")
	if r.Deletes.Next != "" {
		text += ", the first from " + r.Deletes.Next
	}
	t.pair("pending deletes", "%s", text)
}

func (r *Reply) flushes(t *Table) {
	t.pair("not uploaded", "%s at the last commit, the oldest for %s now",
		plural(r.Manifest.NotUploaded, "message"),
		Span(time.Duration(r.OldestNotUploaded*float64(time.Second))))
	t.pair("last flush", "%s", or(r.LastFlush, "never"))
	if r.LastFlushError != "" {
		t.pair("last flush error", "%s", r.LastFlushError)
	}
	for _, c := range r.Classes {
		switch {
		case c.Paused:
			t.pair(c.Class+" requests", "PAUSED since %s: the bucket does not answer", c.Since)
		case c.Waiting > 0:
			t.pair(c.Class+" requests", "at most %d at a time, %d waiting", c.Limit, c.Waiting)
		default:
			t.pair(c.Class+" requests", "at most %d at a time", c.Limit)
		}
	}
}

func (r *Reply) asked(t *Table, f Figures) {
	var kinds []string
	for _, c := range r.Requests.Counts {
		name := c.Op
		if c.Code != "ok" {
			name += " " + c.Code
		}
		kinds = append(kinds, name+" "+count(c.Count))
	}
	t.pair("requests", "%s since %s (%s): %s", count(f.Requests), r.Requests.Since,
		Span(time.Duration(r.Requests.Seconds*float64(time.Second))),
		or(strings.Join(kinds, ", "), "none"))
	if f.PerThousand == nil {
		t.pair("requests per 1,000 messages", "- (no message accepted)")
	} else {
		t.pair("requests per 1,000 messages", "%.3f (%s accepted)", *f.PerThousand,
			plural(r.Requests.Accepted, "message"))
	}
	if f.PerByte != nil {
		t.pair("bytes stored per byte of message", "%.3f", *f.PerByte)
	}
}

func (b *Bill) show(t *Table, u Usage) {
	t.pair("month, estimated", "$%.2f", b.Total)
	t.pair("  storage", "$%.4f: %s at $%g per GB", b.Storage, Size(u.Stored), b.Prices.Storage)
	t.pair("  put, list", "$%.4f: %s at $%g per million", b.Puts, count(b.PutsPerMonth),
		b.Prices.Put)
	t.pair("  get", "$%.4f: %s at $%g per million", b.Gets, count(b.GetsPerMonth), b.Prices.Get)
	note := "requests at the rate of " + Span(u.Over)
	if u.Over < tooShort {
		note += ", which is short: it says little about a month"
	}
	t.pair("  assumed", "%s; what is stored now stays", note)
}
