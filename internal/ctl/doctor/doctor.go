// SPDX-License-Identifier: Apache-2.0

// Package doctor finds what is wrong with a daemon and with a bucket, one line for each check.
//
//	GET /v1/status, /v1/tier, /v1/targets, /readyz --> Diagnose --> findings
//	bucket ------------------------------------------> ExamineBucket --^
//
// It changes nothing, but for the small objects of a trial, which are deleted again. Its functions
// keep nothing and may be called from several goroutines.
package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/internal/ctl/client"
)

// What the doctor finds worth a warning or a failure.
const (
	systemWarn   = 500 * time.Millisecond
	systemFail   = 2 * time.Second // the daemon itself does not follow such a step (rule R21)
	diskWarn     = 2 << 30
	diskFail     = 512 << 20
	uploadedWarn = 2 * time.Minute
	uploadedFail = 15 * time.Minute
)

// health is what the doctor reads of GET /v1/status.
type health struct {
	Version           string  `json:"version"`
	Accepting         bool    `json:"accepting"`
	Restoring         bool    `json:"restoring"`
	OldestNotUploaded float64 `json:"oldest_not_uploaded_seconds"`
	LastFlush         string  `json:"last_flush"`
	LastFlushError    string  `json:"last_flush_error"`
	Disk              struct {
		FreeBytes int64 `json:"free_bytes"`
	} `json:"disk"`
	Clock struct {
		NowMS  int64  `json:"now_ms"`
		Held   bool   `json:"held"`
		Reason string `json:"reason"`
	} `json:"clock"`
	Books client.Books `json:"books"`
}

// Diagnose asks a daemon how it does.
func Diagnose(ctx context.Context, c *client.Client, now func() time.Time) []Finding {
	asked := now()
	raw, err := c.Status(ctx)
	if err != nil {
		return []Finding{{"reachable", Fail, err.Error()}}
	}
	// The daemon read its clock somewhere between the two moments.
	middle := asked.Add(now().Sub(asked) / 2)
	var h health
	if err := json.Unmarshal(raw, &h); err != nil {
		return []Finding{{"reachable", Fail, "status: " + err.Error()}}
	}
	found := []Finding{{"reachable", OK, c.Server() + ", version " + h.Version}}
	if err := c.Ready(ctx); err != nil || !h.Accepting {
		found = append(found, Finding{"accepting", Fail, fmt.Sprint(err)})
	} else if h.Restoring {
		found = append(found, Finding{"accepting", Warn, "restoring: client ids are not known yet"})
	} else {
		found = append(found, Finding{"accepting", OK, ""})
	}
	found = append(found, systemClock(&h, middle), diskFinding(h.Disk.FreeBytes),
		bucketFinding(&h))
	tier, err := c.Tier(ctx)
	var answer *client.Error
	switch {
	case err == nil:
		found = append(found, Examine(tier, now())...)
	case errors.As(err, &answer) && answer.Status == http.StatusNotFound:
		found = append(found, Finding{"bucket", Warn, "none: a lost disk loses every message"})
	default:
		found = append(found, Finding{"bucket", Fail, err.Error()})
	}
	found = append(found, booksFinding(h.Books))
	return append(found, targetFindings(ctx, c)...)
}

// OfBrokers are findings about brokers.
func OfBrokers(found []broker.Finding) []Finding {
	all := make([]Finding, len(found))
	for i, f := range found {
		all[i] = Finding{f.Check, string(f.Verdict), f.Detail}
	}
	return all
}

func systemClock(h *health, here time.Time) Finding {
	offset := time.UnixMilli(h.Clock.NowMS).Sub(here).Round(time.Millisecond)
	f := Finding{"clock", OK, fmt.Sprintf("%s from ours", offset)}
	switch {
	case h.Clock.Held:
		f.Result, f.Detail = Fail, "held: "+h.Clock.Reason+"; see `cicada clock --help`"
	case offset.Abs() > systemFail:
		f.Result = Fail
	case offset.Abs() > systemWarn:
		f.Result = Warn
	}
	return f
}

func diskFinding(free int64) Finding {
	f := Finding{"disk", OK, fmt.Sprintf("%d MiB free", free>>20)}
	switch {
	case free < diskFail:
		f.Result = Fail
	case free < diskWarn:
		f.Result = Warn
	}
	return f
}

func bucketFinding(h *health) Finding {
	waiting := time.Duration(h.OldestNotUploaded * float64(time.Second)).Round(time.Second)
	f := Finding{"bucket", OK, fmt.Sprintf("last flush %s, oldest not uploaded %s", h.LastFlush,
		waiting)}
	switch {
	case h.LastFlushError != "":
		f.Result, f.Detail = Fail, "last flush: "+h.LastFlushError
	case waiting > uploadedFail:
		f.Result = Fail
	case waiting > uploadedWarn:
		f.Result = Warn
	case h.LastFlush == "":
		f.Detail = "no flush yet, or no bucket"
	}
	return f
}

func booksFinding(b client.Books) Finding {
	f := Finding{"books", OK, fmt.Sprintf("accepted %d = pending %d + delivered %d + cancelled "+
		"%d + expired %d + dead %d + suppressed %d + lost with disk %d", b.Accepted, b.Pending,
		b.Delivered, b.Cancelled, b.Expired, b.Dead, b.Suppressed, b.LostWithDisk)}
	switch {
	case b.Missing() != 0:
		f.Result, f.Detail = Fail, fmt.Sprintf("accepted %d, but the rest sums to %d", b.Accepted,
			b.Accepted-b.Missing())
	case b.LostWithDisk > 0:
		f.Result = Warn
	}
	return f
}

func targetFindings(ctx context.Context, c *client.Client) []Finding {
	all, err := c.Targets(ctx)
	if err != nil {
		return []Finding{{"targets", Fail, err.Error()}}
	}
	var found []Finding
	for _, t := range all {
		switch {
		case t.Open:
			found = append(found, Finding{"targets", Warn, t.Target + ": broken: " + t.LastError})
		case t.Paused:
			found = append(found, Finding{"targets", Warn, t.Target + ": paused"})
		}
	}
	if len(found) == 0 {
		found = []Finding{{"targets", OK, fmt.Sprintf("%d", len(all))}}
	}
	return found
}
