// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

const doctorHelp = `Check a running daemon: reachable, accepting, clock, disk, bucket, books,
targets.

  cicada doctor

Each line is a check with ok, warn or FAIL. The exit status is 1 when one fails.`

// What the doctor finds worth a warning or a failure.
const (
	clockWarn    = 500 * time.Millisecond
	clockFail    = 2 * time.Second // the daemon itself does not follow such a step (rule R21)
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

// finding is one line of the doctor.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"`
	Detail string `json:"detail"`
}

func (a *app) doctor() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check a running daemon", Long: doctorHelp, Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			t := &table{columns: []string{"CHECK", "RESULT", "DETAIL"}}
			failed := false
			for _, f := range a.diagnose(cmd.Context(), c) {
				t.add(f.Check, f, f.Check, f.Result, f.Detail)
				failed = failed || f.Result == "FAIL"
			}
			if err := a.print(t, false); err != nil {
				return err
			}
			if failed {
				return &statusError{exitError}
			}
			return nil
		},
	}
}

func (a *app) diagnose(ctx context.Context, c *client.Client) []finding {
	asked := a.Now()
	raw, err := c.Status(ctx)
	if err != nil {
		return []finding{{"reachable", "FAIL", err.Error()}}
	}
	// The daemon read its clock somewhere between the two moments.
	middle := asked.Add(a.Now().Sub(asked) / 2)
	var h health
	if err := json.Unmarshal(raw, &h); err != nil {
		return []finding{{"reachable", "FAIL", "status: " + err.Error()}}
	}
	found := []finding{{"reachable", "ok", c.Server() + ", version " + h.Version}}
	if err := c.Ready(ctx); err != nil || !h.Accepting {
		found = append(found, finding{"accepting", "FAIL", fmt.Sprint(err)})
	} else if h.Restoring {
		found = append(found, finding{"accepting", "warn", "restoring: client ids are not known yet"})
	} else {
		found = append(found, finding{"accepting", "ok", ""})
	}
	found = append(found, clockFinding(&h, middle), diskFinding(h.Disk.FreeBytes),
		bucketFinding(&h), booksFinding(h.Books))
	return append(found, targetFindings(ctx, c)...)
}

func clockFinding(h *health, here time.Time) finding {
	offset := time.UnixMilli(h.Clock.NowMS).Sub(here).Round(time.Millisecond)
	f := finding{"clock", "ok", fmt.Sprintf("%s from ours", offset)}
	switch {
	case h.Clock.Held:
		f.Result, f.Detail = "FAIL", "held: "+h.Clock.Reason+"; see `cicada clock --help`"
	case offset.Abs() > clockFail:
		f.Result = "FAIL"
	case offset.Abs() > clockWarn:
		f.Result = "warn"
	}
	return f
}

func diskFinding(free int64) finding {
	f := finding{"disk", "ok", fmt.Sprintf("%d MiB free", free>>20)}
	switch {
	case free < diskFail:
		f.Result = "FAIL"
	case free < diskWarn:
		f.Result = "warn"
	}
	return f
}

func bucketFinding(h *health) finding {
	waiting := time.Duration(h.OldestNotUploaded * float64(time.Second)).Round(time.Second)
	f := finding{"bucket", "ok", fmt.Sprintf("last flush %s, oldest not uploaded %s", h.LastFlush,
		waiting)}
	switch {
	case h.LastFlushError != "":
		f.Result, f.Detail = "FAIL", "last flush: "+h.LastFlushError
	case waiting > uploadedFail:
		f.Result = "FAIL"
	case waiting > uploadedWarn:
		f.Result = "warn"
	case h.LastFlush == "":
		f.Detail = "no flush yet, or no bucket"
	}
	return f
}

func booksFinding(b client.Books) finding {
	sum := b.Pending + b.Delivered + b.Cancelled + b.Expired + b.Dead + b.LostWithDisk
	f := finding{"books", "ok", fmt.Sprintf("accepted %d = pending %d + delivered %d + cancelled "+
		"%d + expired %d + dead %d + lost with disk %d", b.Accepted, b.Pending, b.Delivered,
		b.Cancelled, b.Expired, b.Dead, b.LostWithDisk)}
	switch {
	case sum != b.Accepted:
		f.Result, f.Detail = "FAIL", fmt.Sprintf("accepted %d, but the rest sums to %d", b.Accepted,
			sum)
	case b.LostWithDisk > 0:
		f.Result = "warn"
	}
	return f
}

func targetFindings(ctx context.Context, c *client.Client) []finding {
	all, err := c.Targets(ctx)
	if err != nil {
		return []finding{{"targets", "FAIL", err.Error()}}
	}
	var found []finding
	for _, t := range all {
		switch {
		case t.Open:
			found = append(found, finding{"targets", "warn", t.Target + ": broken: " + t.LastError})
		case t.Paused:
			found = append(found, finding{"targets", "warn", t.Target + ": paused"})
		}
	}
	if len(found) == 0 {
		found = []finding{{"targets", "ok", fmt.Sprintf("%d", len(all))}}
	}
	return found
}
