// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/scheduler"
)

// histogramRequest asks for the histogram of the future.
type histogramRequest struct {
	bucket    time.Duration
	from, to  delay.Due // 0 is no bound
	recurring bool      // with the firings to come of schedules
}

func (h histogramRequest) check() error {
	switch {
	case h.to == 0 && h.recurring:
		return delay.Invalid("to", "is needed with recurring: schedules may never end")
	case h.to == 0:
		return nil
	}
	if h.to <= h.from {
		return delay.Invalid("to", "must be after from")
	}
	if h.from > 0 && h.to.Sub(h.from)/h.bucket >= maxBuckets {
		return delay.Invalid("bucket", "more than %d buckets", maxBuckets)
	}
	return nil
}

// bars asks the shard.
func (h histogramRequest) bars(ctx context.Context, shard access.Shard) ([]scheduler.Bar, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	f := scheduler.Filter{DueFrom: h.from, DueTo: h.to}
	if h.recurring {
		return shard.Firings(ctx, h.bucket, f)
	}
	return shard.Histogram(ctx, h.bucket, f)
}

func appendCount(out []byte, n int64) []byte {
	out = append(out, `{"count":`...)
	out = strconv.AppendInt(out, n, 10)
	return append(out, '}')
}

func appendBars(out []byte, bars []scheduler.Bar) []byte {
	out = append(out, `{"buckets":[`...)
	for i, b := range bars {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"from":"`...)
		out = wire.AppendDue(out, b.From)
		out = append(out, `","from_ms":`...)
		out = strconv.AppendInt(out, int64(b.From), 10)
		for _, v := range [...]struct {
			name  string
			value int64
		}{{"count", b.Count}, {"bytes", b.Bytes}, {"hot", b.Hot}, {"warm", b.Warm},
			{"cold", b.Cold}, {"recurring", b.Recurring}} {
			out = append(out, `,"`...)
			out = append(out, v.name...)
			out = append(out, `":`...)
			out = strconv.AppendInt(out, v.value, 10)
		}
		out = append(out, '}')
	}
	return append(out, `]}`...)
}

func (s *Server) deadLetters(c *call) error { return s.page(c, c.shard.DeadLetters, true) }

func (s *Server) retryDead(c *call) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	c.change.ID = string(id)
	if err := c.nothing(); err != nil {
		return err
	}
	receipt, err := c.shard.RetryDead(c.lasting(), id)
	if err == nil {
		err = receipt.Err
	}
	if err != nil {
		return err
	}
	c.reply(wire.AppendReceipt(c.memory().out[:0], &receipt))
	return nil
}

func (s *Server) deleteDead(c *call) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	c.change.ID = string(id)
	if err := c.nothing(); err != nil {
		return err
	}
	if err := c.shard.DeleteDead(c.lasting(), id); err != nil {
		return err
	}
	return c.answer(deleted{ID: id, Result: "DELETED"})
}

type deleted struct {
	ID     delay.ID `json:"id"`
	Result string   `json:"result"`
}

// answer replies 200 with a value that is small and rare enough for encoding/json.
func (c *call) answer(v any) error {
	out, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode reply: %w", err)
	}
	writeJSON(c.w, http.StatusOK, out)
	return nil
}

// statusReply is GET /v1/status.
type statusReply struct {
	Version           string      `json:"version"`
	Cluster           string      `json:"cluster"`
	Shard             delay.Shard `json:"shard"`
	Epoch             delay.Epoch `json:"epoch"`
	Watermark         string      `json:"watermark"`
	WatermarkMS       delay.Due   `json:"watermark_ms"`
	ClaimHorizonMS    delay.Due   `json:"claim_horizon_ms"`
	BoundaryMS        delay.Due   `json:"boundary_ms"`
	Tiers             tiersReply  `json:"tiers"`
	OldestNotUploaded float64     `json:"oldest_not_uploaded_seconds"`
	LastFlush         string      `json:"last_flush"` // empty: never
	LastFlushError    string      `json:"last_flush_error"`
	Disk              diskReply   `json:"disk"`
	Clock             clockReply  `json:"clock"`
	Books             booksReply  `json:"books"`
	Accepting         bool        `json:"accepting"`
	Isolated          bool        `json:"isolated"`
	Restoring         bool        `json:"restoring"`
	Draining          bool        `json:"draining"`
}

type tiersReply struct {
	Hot  levelReply `json:"hot"`
	Warm levelReply `json:"warm"`
	Cold levelReply `json:"cold"`
}

type levelReply struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

type diskReply struct {
	FreeBytes int64 `json:"free_bytes"`
}

type clockReply struct {
	Now    string    `json:"now"`
	NowMS  delay.Due `json:"now_ms"`
	Held   bool      `json:"held"`
	Reason string    `json:"reason"`
	Steps  int64     `json:"steps"`
}

type booksReply struct {
	Accepted     int64 `json:"accepted"`
	Pending      int64 `json:"pending"`
	Delivered    int64 `json:"delivered"`
	Cancelled    int64 `json:"cancelled"`
	Expired      int64 `json:"expired"`
	Dead         int64 `json:"dead"`
	LostWithDisk int64 `json:"lost_with_disk"`
	// Cancelling: at most so many of Pending are cancelled in bulk and not counted yet.
	Cancelling int64 `json:"cancelling"`
	// Schedules that have not ended; they are on neither side.
	Schedules int64 `json:"schedules"`
	// Suppressed: guarded messages that their own broker delivered.
	Suppressed int64 `json:"suppressed"`
}

func booksReplyOf(st *scheduler.Status) booksReply {
	b := &st.Books
	return booksReply{
		Accepted: b.Accepted, Pending: b.Pending, Delivered: b.Delivered, Cancelled: b.Cancelled,
		Expired: b.Expired, Dead: b.Dead, LostWithDisk: b.LostWithDisk, Cancelling: st.Cancelling,
		Schedules: b.Schedules, Suppressed: b.Suppressed,
	}
}

func (s *Server) status(c *call) error {
	st := c.shard.Status()
	reply := statusReply{
		Version: s.opts.Version, Cluster: st.ClusterID, Shard: st.Shard, Epoch: st.Epoch,
		Watermark: st.Watermark.Due.String(), WatermarkMS: st.Watermark.Due,
		ClaimHorizonMS: st.ClaimHorizon, BoundaryMS: st.Boundary.Due,
		Tiers:             tiersReply{levelReply(st.Hot), levelReply(st.Warm), levelReply(st.Cold)},
		OldestNotUploaded: st.OldestNotUploaded.Seconds(), LastFlushError: st.LastFlushError,
		Disk: diskReply{st.DiskFreeBytes}, Clock: clockReplyOf(st.Clock), Books: booksReplyOf(&st),
		Accepting: st.Accepting, Isolated: st.Isolated, Restoring: st.Restoring,
		Draining: s.Draining(),
	}
	if !st.LastFlush.IsZero() {
		reply.LastFlush = delay.InstantOf(st.LastFlush).String()
	}
	return c.answer(reply)
}

func clockReplyOf(c scheduler.ClockStatus) clockReply {
	return clockReply{c.Now.String(), c.Now, c.Held, c.Reason, c.Steps}
}

func (s *Server) confirmClock(c *call) error {
	if err := c.nothing(); err != nil {
		return err
	}
	c.shard.ConfirmClock()
	return c.answer(clockReplyOf(c.shard.Status().Clock))
}

type healthReply struct {
	Status string `json:"status"`
}

// health says that the process is alive.
func (s *Server) health(c *call) error { return c.answer(healthReply{"ok"}) }

// ready says that sends are accepted. Overload and a full disk do not change it: another instance
// would not have more room for this shard.
func (s *Server) ready(c *call) error {
	if s.Draining() {
		return errDraining
	}
	if !s.shard.Status().Accepting {
		return fmt.Errorf("%w: not accepting yet", delay.ErrUnavailable)
	}
	return c.answer(healthReply{"ready"})
}

func (s *Server) metrics(c *call) error {
	if s.opts.Metrics == nil {
		return fmt.Errorf("%w: no metrics here", delay.ErrNotFound)
	}
	s.opts.Metrics.ServeHTTP(c.w, c.Request)
	return nil
}
