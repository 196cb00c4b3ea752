// SPDX-License-Identifier: Apache-2.0

package tierview

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/segment"
)

// Of the trial reads that an estimate of time is made from.
const (
	samples    = 4
	sampleSize = 1 << 20
	smallSize  = 4 << 10
	// atOnce is how many reads a restore keeps under way: the least, that of a segment's indexes.
	atOnce = 8
	// nearSpan is what a restore brings back to the local store first: the default horizon.
	nearSpan = 24 * time.Hour
)

// Plan says what a daemon with an empty data directory would find in the bucket, and how long it
// would need.
type Plan struct {
	Cluster     string    `json:"cluster"`
	Version     uint64    `json:"manifest_version"`
	Epoch       uint32    `json:"epoch"`
	Released    bool      `json:"released"` // the owner stopped cleanly
	WrittenAt   string    `json:"written_at"`
	AgeSeconds  int64     `json:"age_seconds"`
	Watermark   string    `json:"watermark"`
	Messages    int64     `json:"messages"` // that wait, kept ones apart
	Bytes       int64     `json:"bytes"`
	Days        []PlanDay `json:"days"`
	Unfinished  int64     `json:"unfinished"` // overdue: parked, leased or between attempts
	Dead        int64     `json:"dead"`
	IDs         int64     `json:"ids"` // entries of ids, finished ones included
	Lost        int64     `json:"lost_with_disk"`
	BulkCancels int       `json:"bulk_cancels"`
	Rough       bool      `json:"rough"` // whole days, without bulk cancels
	Time        PlanTime  `json:"time"`
}

// PlanDay is what comes back of one UTC day.
type PlanDay struct {
	Day      string `json:"day"`
	Messages int64  `json:"messages"`
	Bytes    int64  `json:"bytes"`
}

// PlanTime is an estimate, and what it was made of (O2).
type PlanTime struct {
	Ready       float64 `json:"ready_seconds"`     // until it serves
	Near        float64 `json:"near_seconds"`      // until a day's messages are local, besides
	Latency     float64 `json:"latency_seconds"`   // of a small read, measured
	Throughput  float64 `json:"bytes_per_second"`  // of one read of 1 MiB, measured
	ReadyReads  int64   `json:"ready_reads"`       // requests before it serves
	ReadyBytes  int64   `json:"ready_bytes"`       //
	NearBytes   int64   `json:"near_bytes"`        // stored, due within a day
	SampleReads int     `json:"sample_reads"`      // reads that were measured
	Parallel    int     `json:"parallel_reads"`    // assumed
	Took        float64 `json:"measuring_seconds"` //
}

// Plan reads all that would come back and counts it; rough reads only the indexes and the marks.
// progress, if not nil, is told the bytes of messages read, of all.
func (v *View) Plan(
	ctx context.Context, rough bool, progress func(done, total int64),
) (*Plan, error) {
	s := &v.State
	p := &Plan{
		Cluster: s.ClusterID, Version: s.Version, Epoch: uint32(s.Epoch), Released: s.Released,
		WrittenAt: s.WrittenAt.String(), Watermark: s.Watermark.Due.String(), Lost: s.NotUploaded,
		AgeSeconds:  int64(v.Now().Sub(s.WrittenAt.Time()) / time.Second),
		BulkCancels: len(s.Predicates), Rough: rough, Days: []PlanDay{},
	}
	for _, o := range v.listed() {
		p.IDs += o.IDs
	}
	if err := v.finished(ctx); err != nil {
		return nil, err
	}
	count := v.countExactly
	if rough {
		count = v.countRoughly
	}
	near, err := count(ctx, p, progress)
	if err != nil {
		return nil, err
	}
	if err := v.countKept(ctx, p); err != nil {
		return nil, err
	}
	return p, v.estimate(ctx, &p.Time, near)
}

// day adds to the day of an instant; days come in order.
func (p *Plan) day(at delay.Due, n, bytes int64) {
	day := at.Time().UTC().Format(time.DateOnly)
	if len(p.Days) == 0 || p.Days[len(p.Days)-1].Day != day {
		p.Days = append(p.Days, PlanDay{Day: day})
	}
	d := &p.Days[len(p.Days)-1]
	d.Messages, d.Bytes = d.Messages+n, d.Bytes+bytes
	p.Messages, p.Bytes = p.Messages+n, p.Bytes+bytes
}

// until is the end of what is brought back first.
func (v *View) until() delay.Due {
	return max(delay.InstantOf(v.Now()), v.State.Watermark.Due).Add(nearSpan)
}

// countExactly scans the segments. near is what of the bytes is due soon.
func (v *View) countExactly(
	ctx context.Context, p *Plan, progress func(done, total int64),
) (near int64, err error) {
	var done, total int64
	for _, i := range v.State.Segments {
		if v.State.Watermark.Less(i.Last) {
			total += i.Bytes
		}
	}
	until := v.until()
	err = v.Tier.Scan(ctx, v.State.Watermark, delay.MaxKey, func(k delay.Key, rec []byte) bool {
		if k.Due < until {
			near += int64(len(rec))
		}
		if done += int64(len(rec)); progress != nil {
			progress(done, total)
		}
		if !v.gone(k, rec) {
			p.day(k.Due, 1, int64(len(rec)))
		}
		return true
	})
	return near, err
}

// countRoughly takes the directories of the segments, less the marks.
func (v *View) countRoughly(
	ctx context.Context, p *Plan, _ func(done, total int64),
) (near int64, err error) {
	days, err := v.Tier.Count(ctx, v.State.Watermark, delay.MaxKey)
	if err != nil {
		return 0, err
	}
	marked := make(map[delay.Due]int64)
	for k := range v.marked {
		if !k.Less(v.State.Watermark) {
			marked[k.Due-k.Due%segment.DayMillis]++
		}
	}
	until := v.until()
	for _, d := range days {
		if d.Day < until {
			near += d.Bytes
		}
		p.day(d.Day, max(d.Count-marked[d.Day], 0), d.Bytes)
	}
	return near, nil
}

func (v *View) countKept(ctx context.Context, p *Plan) error {
	return v.Tier.ScanKept(ctx, func(k delay.Kept) bool {
		switch {
		case v.marked[k.Key]:
		case k.Progress.State == delay.Dead, k.Progress.State == delay.Expired:
			p.Dead++
		default:
			p.Unfinished++
		}
		return true
	})
}

// estimate measures a few reads of this bucket. What is read before it serves: the manifest, the
// indexes, all marks and kept messages; afterwards, what is due within a day.
func (v *View) estimate(ctx context.Context, t *PlanTime, near int64) error {
	s := &v.State
	t.ReadyReads, t.Parallel = 3, atOnce
	var raw, stored int64
	for _, i := range s.Segments {
		t.ReadyReads++
		t.ReadyBytes += i.Stored - i.TailOffset
		raw, stored = raw+i.Bytes, stored+i.Stored
	}
	for _, list := range [...][]tiered.SegmentInfo{s.Kept, s.Marks} {
		for _, i := range list {
			t.ReadyReads++
			t.ReadyBytes += i.Stored
		}
	}
	if raw > 0 {
		t.NearBytes = int64(float64(near) / float64(raw) * float64(stored))
	}
	if err := v.measure(ctx, t); err != nil {
		return err
	}
	if t.SampleReads == 0 {
		return nil
	}
	t.Ready = float64(t.ReadyReads)*t.Latency/atOnce + float64(t.ReadyBytes)/t.Throughput
	t.Near = float64(t.NearBytes) / t.Throughput
	return nil
}

// measure times reads of the largest segments: a small part, and then up to 1 MiB of each.
func (v *View) measure(ctx context.Context, t *PlanTime) error {
	largest := slices.Clone(v.State.Segments)
	slices.SortFunc(largest, func(a, b tiered.SegmentInfo) int { return int(b.Stored - a.Stored) })
	c, begin := v.client(), v.Now()
	var small, large time.Duration
	var bytes int64
	for _, i := range largest[:min(len(largest), samples)] {
		for _, most := range [...]int64{smallSize, sampleSize} {
			length := min(most, i.Stored)
			start := v.Now()
			if _, err := c.GetRange(ctx, v.Tier.Prefix()+i.Name, 0, length); err != nil {
				return fmt.Errorf("measure %s: %w", i.Name, err)
			}
			t.SampleReads++
			if took := v.Now().Sub(start); most == smallSize {
				small += took
			} else {
				large, bytes = large+took, bytes+length
			}
		}
	}
	t.Took = v.Now().Sub(begin).Seconds()
	if t.SampleReads == 0 {
		return nil
	}
	t.Latency = small.Seconds() / float64(t.SampleReads/2)
	// A clock too coarse to see a read must not make it infinitely fast.
	t.Throughput = float64(bytes) / max(large, time.Millisecond).Seconds()
	return nil
}

// planDays is how many days the table shows; the JSON formats show all.
const planDays = 14

// Table shows the plan.
func (p *Plan) Table() *Table {
	t := &Table{}
	t.pair("cluster", "%s", p.Cluster)
	left := "did not stop cleanly: the daemon waits before it delivers"
	if p.Released {
		left = "stopped cleanly"
	}
	t.pair("manifest", "version %s, written %s, %s ago", count(int64(p.Version)), p.WrittenAt,
		Span(time.Duration(p.AgeSeconds)*time.Second))
	t.pair("last owner", "epoch %d, %s", p.Epoch, left)
	t.pair("watermark", "%s", p.Watermark)
	t.pair("messages to come", "%d", p.Messages)
	t.pair("bytes", "%d", p.Bytes)
	for i, d := range p.Days {
		if i == planDays {
			t.pair("  later", "%s", plural(int64(len(p.Days)-planDays), "more day"))
			break
		}
		t.pair("  "+d.Day, "%s, %s", plural(d.Messages, "message"), Size(d.Bytes))
	}
	t.pair("unfinished, overdue", "%d", p.Unfinished)
	t.pair("dead", "%d", p.Dead)
	t.pair("entries of ids", "%d", p.IDs)
	if p.BulkCancels > 0 {
		t.pair("bulk cancels", "%s", strconv.Itoa(p.BulkCancels))
	}
	t.pair("lost with the disk, at that moment", "%d", p.Lost)
	if p.Rough {
		t.pair("", "rough: whole days, bulk cancels not applied")
	}
	p.Time.show(t)
	return t
}

func (e *PlanTime) show(t *Table) {
	if e.SampleReads == 0 {
		t.pair("time", "nothing to measure: the bucket holds no segment")
		return
	}
	seconds := func(s float64) string { return Span(time.Duration(s * float64(time.Second))) }
	t.pair("until it serves, about", "%s: %s, %s", seconds(e.Ready),
		plural(e.ReadyReads, "read"), Size(e.ReadyBytes))
	t.pair("until a day is local, about", "%s more: %s", seconds(e.Near), Size(e.NearBytes))
	t.pair("  measured", "%s: %s for a small one, %s/s", plural(int64(e.SampleReads), "read"),
		seconds(e.Latency), Size(int64(e.Throughput)))
	t.pair("  assumed", "%d reads at a time without more throughput; the local disk keeps up",
		e.Parallel)
}
