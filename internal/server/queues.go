// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"slices"
	"time"

	"github.com/cicadamq/cicada/broker/pull"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/scheduler"
)

// queue is the queue in the path.
func (c *call) queue() (string, error) {
	name := c.PathValue("queue")
	_, err := pull.ParseQueue(name)
	return name, err
}

func (s *Server) pull(c *call) error {
	queue, err := c.queue()
	if err != nil {
		return err
	}
	body, err := c.body(maxSmallBytes)
	if err != nil {
		return err
	}
	req, err := wire.DecodePull(body)
	if err != nil {
		return err
	}
	leases, err := s.lease(c.Context(), c.shard, queue, req)
	if err != nil {
		return err
	}
	c.reply(wire.AppendLeases(c.memory().out[:0], leases))
	return nil
}

// lease waits for messages until there is one, the wait is over, the client has gone or a drain
// begins (W7).
func (s *Server) lease(ctx context.Context, shard access.Shard, queue string, req wire.Pull) (
	[]scheduler.Lease, error) {
	ctx, end, err := s.polls.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	leases, err := shard.Pull(ctx, queue, req.Max, req.Wait, req.Lease)
	if ended(err) && len(leases) == 0 {
		return nil, nil
	}
	return leases, err
}

func (s *Server) ack(c *call) error    { return s.settle(c, scheduler.Ack) }
func (s *Server) nack(c *call) error   { return s.settle(c, scheduler.Nack) }
func (s *Server) extend(c *call) error { return s.settle(c, scheduler.Extend) }

func (s *Server) settle(c *call, kind scheduler.Settlement) error {
	queue, err := c.queue()
	if err != nil {
		return err
	}
	body, err := c.body(maxSmallBytes)
	if err != nil {
		return err
	}
	req, err := wire.DecodeSettle(body, kind)
	if err != nil {
		return err
	}
	req.Queue = queue
	m := c.memory()
	m.results = settleResults(m.results, len(req.Receipts))
	if err := c.shard.Settle(c.lasting(), req, m.results); err != nil {
		return err
	}
	c.reply(wire.AppendSettled(m.out[:0], req.Receipts, m.results))
	return nil
}

func settleResults(results []scheduler.SettleResult, n int) []scheduler.SettleResult {
	results = slices.Grow(results[:0], n)[:n]
	clear(results)
	return results
}

func (s *Server) count(c *call) error {
	f, err := c.filter()
	if err != nil {
		return err
	}
	n, err := c.shard.Count(c.Context(), f)
	if err != nil {
		return err
	}
	c.reply(appendCount(c.memory().out[:0], n))
	return nil
}

// purgeReply tells what a purge has done. Durability is that of the bulk cancel of cold messages;
// local ones have that of their own.
type purgeReply struct {
	Count      int64  `json:"count"`
	Cancelling bool   `json:"cancelling"`
	Durability string `json:"durability"`
}

func (s *Server) purge(c *call) error {
	body, err := c.body(maxSmallBytes)
	if err != nil {
		return err
	}
	f, dryRun, err := wire.DecodePurge(body)
	if err != nil {
		return err
	}
	done, err := c.shard.Purge(c.lasting(), f, dryRun)
	c.purged(f, dryRun, done.Count)
	if err != nil {
		return err
	}
	return c.answer(purgeReply{
		Count: done.Count, Cancelling: done.Cancelling, Durability: done.Durability.String(),
	})
}

func (s *Server) next(c *call) error {
	limit, err := c.number("limit", wire.MaxPage, wire.DefaultPage)
	if err != nil {
		return err
	}
	infos, err := c.shard.Next(c.Context(), limit)
	if err != nil {
		return err
	}
	c.reply(append(s.appendInfos(c, infos, false), '}'))
	return nil
}

// Limits of a histogram.
const (
	defaultBucket = time.Hour
	maxBuckets    = 100_000
)

func (s *Server) histogram(c *call) error {
	req := histogramRequest{bucket: defaultBucket}
	if c.params.Has("bucket") {
		ms, err := wire.ParseMillis(c.params.Get("bucket"))
		if err != nil {
			return wire.Reason("bucket", err)
		}
		if req.bucket, err = wire.Duration("bucket", ms, 1); err != nil {
			return err
		}
	}
	var err error
	if req.from, err = c.instant("from"); err != nil {
		return err
	}
	if req.to, err = c.instant("to"); err != nil {
		return err
	}
	if req.recurring, err = c.flag("recurring"); err != nil {
		return err
	}
	bars, err := req.bars(c.Context(), c.shard)
	if err != nil {
		return err
	}
	c.reply(appendBars(c.memory().out[:0], bars))
	return nil
}
