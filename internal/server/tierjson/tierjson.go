// SPDX-License-Identifier: Apache-2.0

// Package tierjson is the reply of GET /v1/tier: what the daemon knows of its cold tier, as JSON.
package tierjson

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore/probe"
)

// Info is what the daemon knows of the cold tier, for GET /v1/tier.
type Info struct {
	Bucket   string // without secrets
	SameDisk bool   // the bucket lies on the disk of the local store
	State    tiered.State
	Stats    tiered.Stats
	Probed   *Probed // nil: the store needs no trial, or had none yet
	// StoreTime and LocalTime are one moment on the store's clock and on ours; zero: unknown.
	StoreTime, LocalTime time.Time
}

// Probed is the trial of the store at the start.
type Probed struct {
	Verdict probe.Verdict
	At      time.Time
}

// Reply is GET /v1/tier; see api/openapi.yaml.
type Reply struct {
	Bucket   string        `json:"bucket"`
	SameDisk bool          `json:"same_disk"`
	Cluster  string        `json:"cluster"`
	Shard    delay.Shard   `json:"shard"`
	Epoch    delay.Epoch   `json:"epoch"`
	Manifest manifestReply `json:"manifest"`
	Probe    *probeReply   `json:"probe,omitempty"`
	Levels   []groupReply  `json:"levels"`
	Deletes  deletesReply  `json:"pending_deletes"`

	OldestNotUploaded float64 `json:"oldest_not_uploaded_seconds"`
	LastFlush         string  `json:"last_flush"` // empty: never
	LastFlushError    string  `json:"last_flush_error"`

	Classes  []classReply  `json:"classes"`
	Requests requestsReply `json:"requests"`
	Clock    *storeClock   `json:"store_clock,omitempty"`
}

type manifestReply struct {
	Version     uint64    `json:"version"`
	WrittenAt   string    `json:"written_at"`
	WrittenAtMS delay.Due `json:"written_at_ms"`
	Bytes       int64     `json:"bytes"`
	NotUploaded int64     `json:"not_uploaded"`
}

type probeReply struct {
	At    string      `json:"at"`
	Steps []stepReply `json:"steps"`
}

type stepReply struct {
	Name   string `json:"name"`
	Tried  string `json:"tried"`
	Kept   bool   `json:"kept"`
	Needed bool   `json:"needed"`
}

type groupReply struct {
	Kind     string `json:"kind"`
	Level    uint8  `json:"level"`
	Objects  int    `json:"objects"`
	Items    int64  `json:"items"` // messages or marks
	Bytes    int64  `json:"bytes"`
	Stored   int64  `json:"stored_bytes"`
	FirstDue string `json:"first_due"` // empty: no key
	LastDue  string `json:"last_due"`
	Oldest   string `json:"oldest"`
	Newest   string `json:"newest"`
}

type deletesReply struct {
	Objects int    `json:"objects"`
	Next    string `json:"next"` // empty: none
}

type classReply struct {
	Class   string `json:"class"`
	Paused  bool   `json:"paused"`
	Since   string `json:"since"` // empty: not paused
	Limit   int    `json:"limit"`
	Under   int    `json:"under_way"`
	Waiting int    `json:"waiting"`
	Retries int    `json:"retries_left"`
}

type requestsReply struct {
	Since    string       `json:"since"`
	Seconds  float64      `json:"seconds"`
	Accepted int64        `json:"accepted"` // messages, since the same moment
	Counts   []countReply `json:"counts"`
	BytesIn  int64        `json:"bytes_in"`
	BytesOut int64        `json:"bytes_out"`
	Commits  int64        `json:"commits"`
}

type countReply struct {
	Op    string `json:"op"`
	Code  string `json:"code"`
	Count int64  `json:"count"`
}

type storeClock struct {
	AheadMS int64  `json:"system_ahead_ms"`
	At      string `json:"at"`
}

// Of is the reply for a tier and the shard above it.
func Of(info *Info, shard *scheduler.Status, now time.Time) *Reply {
	st := &info.State
	reply := &Reply{
		Bucket: info.Bucket, SameDisk: info.SameDisk, Cluster: shard.ClusterID, Shard: shard.Shard,
		Epoch: shard.Epoch,
		Manifest: manifestReply{st.Version, dueText(st.WrittenAt), st.WrittenAt,
			info.Stats.ManifestBytes, st.NotUploaded},
		Levels: groupsOf(st), Deletes: deletesOf(st),
		OldestNotUploaded: shard.OldestNotUploaded.Seconds(), LastFlush: momentText(shard.LastFlush),
		LastFlushError: shard.LastFlushError, Classes: classesOf(info.Stats.Health),
		Requests: requestsOf(&info.Stats, now),
	}
	if p := info.Probed; p != nil {
		reply.Probe = &probeReply{At: momentText(p.At)}
		for _, step := range p.Verdict.Steps() {
			reply.Probe.Steps = append(reply.Probe.Steps, stepReply(step))
		}
	}
	if !info.StoreTime.IsZero() {
		reply.Clock = &storeClock{info.LocalTime.Sub(info.StoreTime).Milliseconds(),
			momentText(info.LocalTime)}
	}
	return reply
}

// dueText is the text of a due, empty for none.
func dueText(d delay.Due) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func momentText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return delay.InstantOf(t).String()
}

func groupsOf(st *tiered.State) []groupReply {
	all := []groupReply{}
	for _, g := range st.Groups() {
		all = append(all, groupReply{
			Kind: g.Kind, Level: g.Level, Objects: g.Objects, Items: g.Items, Bytes: g.Bytes,
			Stored: g.Stored, FirstDue: dueText(g.First), LastDue: dueText(g.Last),
			Oldest: dueText(g.Oldest), Newest: dueText(g.Newest),
		})
	}
	return all
}

func deletesOf(st *tiered.State) deletesReply {
	d := deletesReply{Objects: len(st.Deletes)}
	if len(st.Deletes) > 0 {
		next := slices.MinFunc(st.Deletes, func(a, b tiered.PendingDelete) int {
			return cmp.Compare(a.NotBefore, b.NotBefore)
		})
		d.Next = dueText(next.NotBefore)
	}
	return d
}

func classesOf(health []tiered.Health) []classReply {
	all := []classReply{}
	for _, h := range health {
		all = append(all, classReply{h.Class.String(), h.Paused, momentText(h.Since), h.Limit, h.Under,
			h.Waiting, h.Retries})
	}
	return all
}

func requestsOf(st *tiered.Stats, now time.Time) requestsReply {
	r := requestsReply{
		Since: momentText(st.Since), Seconds: now.Sub(st.Since).Seconds(), Accepted: st.Accepted,
		Counts: []countReply{}, BytesIn: st.BytesIn, BytesOut: st.BytesOut, Commits: st.Commits,
	}
	for name, n := range st.Requests {
		op, code, _ := strings.Cut(name, "/")
		r.Counts = append(r.Counts, countReply{op, code, n})
	}
	slices.SortFunc(r.Counts, func(a, b countReply) int {
		return cmp.Or(cmp.Compare(a.Op, b.Op), cmp.Compare(a.Code, b.Code))
	})
	return r
}
