// SPDX-License-Identifier: Apache-2.0

package tierview

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// listRow is one object in the JSON formats.
type listRow struct {
	Kind        string `json:"kind"`
	Level       *uint8 `json:"level,omitempty"`
	Name        string `json:"name"`
	Items       int64  `json:"messages"` // or marks
	Bytes       int64  `json:"bytes"`
	FirstDue    string `json:"first_due,omitempty"`
	LastDue     string `json:"last_due,omitempty"`
	CommittedAt string `json:"committed_at,omitempty"`
	AgeSeconds  int64  `json:"age_seconds"`
	Marked      *int64 `json:"marked,omitempty"`
	DeleteAfter string `json:"delete_after,omitempty"`
}

// List shows what the manifest lists: segments by level and due, kept segments, marks, and what
// waits for its deletion. withMarks reads the marks and counts, for each segment, those that may
// be of its messages: a key that lies in the ranges of two segments counts for both.
func (v *View) List(ctx context.Context, withMarks bool) (*Table, error) {
	t := &Table{Columns: []string{"KIND", "LEVEL", "NAME", "MESSAGES", "BYTES", "FIRST DUE",
		"LAST DUE", "AGE", "MARKED", "DELETE AFTER"}}
	var keys []delay.Key
	if withMarks {
		if err := v.finished(ctx); err != nil {
			return nil, err
		}
		for k := range v.marked {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, delay.Key.Compare)
	}
	for _, o := range v.listed() {
		age := v.Now().Sub(o.CommittedAt.Time())
		row := listRow{Kind: o.kind, Name: o.Name, Items: o.Count, Bytes: o.Stored,
			CommittedAt: o.CommittedAt.String(), AgeSeconds: int64(age / time.Second)}
		level, first, last, marked := "-", "-", "-", "-"
		if o.kind == "segment" {
			row.Level, level = &o.Level, strconv.Itoa(int(o.Level))
		}
		if !o.Last.IsZero() {
			first, last = o.First.Due.String(), o.Last.Due.String()
			row.FirstDue, row.LastDue = first, last
		}
		if withMarks && o.kind != "marks" {
			n := marksIn(keys, &o.SegmentInfo)
			row.Marked, marked = &n, strconv.FormatInt(n, 10)
		}
		t.add(o.Name, row, o.kind, level, o.Name, strconv.FormatInt(o.Count, 10),
			strconv.FormatInt(o.Stored, 10), first, last, Span(age), marked, "-")
	}
	v.deletes(t)
	return t, nil
}

// marksIn counts the keys, which are sorted, that the segment may hold.
func marksIn(keys []delay.Key, s *tiered.SegmentInfo) (n int64) {
	from := sort.Search(len(keys), func(i int) bool { return !keys[i].Less(s.First) })
	for _, k := range keys[from:] {
		if s.Last.Less(k) {
			break
		}
		if s.MayHold(k) {
			n++
		}
	}
	return n
}

func (v *View) deletes(t *Table) {
	all := slices.Clone(v.State.Deletes)
	slices.SortFunc(all, func(a, b tiered.PendingDelete) int {
		return cmp.Or(cmp.Compare(a.NotBefore, b.NotBefore), strings.Compare(a.Name, b.Name))
	})
	for _, d := range all {
		at := d.NotBefore.String()
		t.add(d.Name, map[string]any{"kind": "deleting", "name": d.Name, "delete_after": at},
			"deleting", "-", d.Name, "-", "-", "-", "-", "-", "-", at)
	}
}

// Days shows how many messages the segments hold of each UTC day, finished ones included. It reads
// the indexes.
func (v *View) Days(ctx context.Context) (*Table, error) {
	t := &Table{Columns: []string{"DAY", "MESSAGES", "BYTES"}}
	days, err := v.Tier.Count(ctx, delay.Key{}, delay.MaxKey)
	if err != nil {
		return nil, err
	}
	for _, d := range days {
		day := d.Day.Time().UTC().Format(time.DateOnly)
		t.add(day, map[string]any{"day": day, "messages": d.Count, "bytes": d.Bytes}, day,
			strconv.FormatInt(d.Count, 10), strconv.FormatInt(d.Bytes, 10))
	}
	return t, nil
}

// youngUpload is the age below which an object that no manifest names may be about to be
// committed (rule R22).
const youngUpload = time.Hour

// Objects compares the bucket with the manifest: orphans, which no manifest names, and what is
// missing though the manifest lists it. missing is their number.
func (v *View) Objects(ctx context.Context) (t *Table, missing int, err error) {
	t = &Table{Columns: []string{"KIND", "NAME", "BYTES", "AGE", "NOTE"}}
	// The list comes before the manifest: what is committed in between is no orphan.
	infos, err := v.client().List(ctx, v.Tier.Prefix())
	if err != nil {
		return nil, 0, err
	}
	state, err := v.Tier.Load(ctx)
	if err != nil {
		return nil, 0, err
	}
	if state == nil {
		return nil, 0, fmt.Errorf("%w: the manifest vanished", delay.ErrCorrupt)
	}
	there := make(map[string]bool, len(infos))
	named := state.Names(true)
	for _, info := range infos {
		name := strings.TrimPrefix(info.Key, v.Tier.Prefix())
		there[name] = true
		if name != "manifest" && !named[name] {
			v.orphan(t, name, &info)
		}
	}
	for _, o := range v.listed() {
		// What left the lists since the first manifest was read is not missing.
		if !there[o.Name] && state.Names(false)[o.Name] {
			missing++
			t.add(o.Name, map[string]any{"kind": "missing", "name": o.Name, "bytes": o.Stored},
				"missing", o.Name, strconv.FormatInt(o.Stored, 10), "-", "the manifest lists it")
		}
	}
	return t, missing, nil
}

func (v *View) orphan(t *Table, name string, info *objstore.Info) {
	age, note := v.Now().Sub(info.Modified), "deleted when older than "+Span(tiered.OrphanAge)
	if age < youngUpload {
		note = "may be an upload under way"
	}
	t.add(name, map[string]any{"kind": "orphan", "name": name, "bytes": info.Size,
		"age_seconds": int64(age / time.Second), "note": note},
		"orphan", name, strconv.FormatInt(info.Size, 10), Span(age), note)
}
