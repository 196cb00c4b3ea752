// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/ctl/tierview"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/probe"
)

// The results of a check.
const (
	OK   = "ok"
	Note = "note" // advice: nothing was found wrong
	Warn = "warn"
	Fail = "FAIL"
)

// What the doctor finds worth a warning or a failure.
const (
	clockWarn    = 3 * time.Second  // a Date header has whole seconds, and takes a while
	clockFail    = 10 * time.Minute // most stores refuse requests at 15 minutes
	manifestWarn = 15 * time.Minute
)

// Finding is one line of the doctor.
type Finding struct {
	Check  string `json:"check"`
	Result string `json:"result"`
	Detail string `json:"detail"`
}

const lifecycle = "let no lifecycle rule delete objects below the prefix; with versioning, let " +
	"one end the versions that are not current"

// Examine finds what is wrong with the tier of a daemon, from its reply of GET /v1/tier.
func Examine(raw json.RawMessage, now time.Time) []Finding {
	var r tierview.Reply
	if err := json.Unmarshal(raw, &r); err != nil {
		return []Finding{{"bucket", Fail, "tier: " + err.Error()}}
	}
	var all []Finding
	if r.SameDisk {
		all = append(all, Finding{"bucket's disk", Warn,
			"it is the disk of the local store: the bucket survives no disk loss"})
	}
	all = append(all, promises(&r)...)
	for _, c := range r.Classes {
		if c.Paused {
			all = append(all, Finding{c.Class + " requests", Fail,
				"paused since " + c.Since + ": the bucket does not answer"})
		}
	}
	if c := r.Clock; c != nil {
		all = append(all, clockFinding(time.Duration(c.AheadMS)*time.Millisecond))
	}
	m := r.Manifest
	f := Finding{"manifest", OK, "none yet"}
	if m.Version > 0 {
		age := now.Sub(time.UnixMilli(m.WrittenAtMS))
		f.Detail = fmt.Sprintf("version %d, written %s ago, %s", m.Version, tierview.Span(age),
			tierview.Size(m.Bytes))
		if age > manifestWarn && m.NotUploaded > 0 {
			f.Result = Warn
		}
	}
	all = append(all, f)
	if strings.HasPrefix(r.Bucket, "s3:") {
		all = append(all, Finding{"lifecycle", Note, lifecycle})
	}
	return all
}

// promises tells of the trial of the store.
func promises(r *tierview.Reply) []Finding {
	if r.Probe == nil {
		return nil
	}
	v := make([]probe.Step, len(r.Probe.Steps))
	for i, s := range r.Probe.Steps {
		v[i] = probe.Step(s)
	}
	return []Finding{promiseFinding(v, "at "+r.Probe.At)}
}

func promiseFinding(steps []probe.Step, when string) Finding {
	var kept, broken, wanting []string
	for _, s := range steps {
		switch {
		case s.Kept:
			kept = append(kept, s.Name)
		case s.Needed:
			broken = append(broken, s.Name)
		default:
			wanting = append(wanting, s.Name)
		}
	}
	f := Finding{"store", OK, "tried out " + when + ", keeps its promises: " +
		strings.Join(kept, ", ")}
	if len(wanting) > 0 {
		f.Detail += "; not needed and not kept: " + strings.Join(wanting, ", ")
	}
	if len(broken) > 0 {
		f.Result, f.Detail = Fail, "not kept: "+strings.Join(broken, ", ")
	}
	return f
}

func clockFinding(ahead time.Duration) Finding {
	f := Finding{"store's clock", OK, "ours is " + tierview.Ahead(ahead)}
	switch {
	case ahead.Abs() > clockFail:
		f.Result, f.Detail = Fail, f.Detail+": the store refuses requests that are far off"
	case ahead.Abs() > clockWarn:
		f.Result = Warn
	}
	return f
}

// ExamineBucket tries a bucket out, and looks at the manifest in it. It writes, and deletes again,
// a few small objects below probe/ (package probe), so it may be done beside a daemon.
func ExamineBucket(
	ctx context.Context, b objstore.Bucket, now func() time.Time,
) []Finding {
	verdict, err := probe.Probe(ctx, b)
	f := promiseFinding(verdict.Steps(), "now")
	switch {
	case errors.Is(err, probe.ErrUnfit):
		f.Result, f.Detail = Fail, err.Error()
	case err != nil:
		return []Finding{{"store", Fail, err.Error()}}
	}
	all := []Finding{f}
	if c, ok := b.(objstore.Clock); ok {
		if remote, local, known := c.RemoteTime(); known {
			all = append(all, clockFinding(local.Sub(remote)))
		}
		all = append(all, Finding{"lifecycle", Note, lifecycle})
	}
	return append(all, manifestFinding(ctx, b, now))
}

func manifestFinding(ctx context.Context, b objstore.Bucket, now func() time.Time) Finding {
	t, err := tiered.Open(ctx, b, tiered.Options{ReadOnly: true, Now: now})
	if errors.Is(err, delay.ErrNotFound) {
		return Finding{"manifest", OK, "none: the bucket is empty"}
	}
	var s *tiered.State
	if err == nil {
		s, err = t.Load(ctx)
		err = errors.Join(err, t.Close())
	}
	switch {
	case err != nil:
		return Finding{"manifest", Fail, err.Error()}
	case s == nil:
		return Finding{"manifest", OK, "none yet, of cluster " + t.ClusterID()}
	}
	return Finding{"manifest", OK, fmt.Sprintf("version %d, epoch %d, written %s ago, cluster %s",
		s.Version, s.Epoch, tierview.Span(now().Sub(s.WrittenAt.Time())), s.ClusterID)}
}
