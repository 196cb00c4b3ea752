// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	partitions = 4
	bodyBytes  = 200
	noiseBytes = 1 << 20 // too many to be compressed away
	giveUp     = 90 * time.Second
)

// noise is what bodies are filled with.
func noise() []byte {
	b := make([]byte, noiseBytes/2)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(b) // never fails
	return hex.AppendEncode(nil, b)
}

// body is the value of message n, due at an instant in milliseconds: it says both.
func (l *lab) body(n int, due int64) []byte {
	b := make([]byte, 0, bodyBytes)
	b = fmt.Appendf(b, "%08d %013d ", n, due)
	at := n * 131 % (noiseBytes - bodyBytes)
	return append(b, l.noise[at:at+bodyBytes-len(b)]...)
}

// read is the reverse.
func read(b []byte) (n int, due int64, err error) {
	if len(b) != bodyBytes {
		return 0, 0, fmt.Errorf("a body of %d bytes", len(b))
	}
	if n, err = strconv.Atoi(string(b[:8])); err == nil {
		due, err = strconv.ParseInt(string(b[9:22]), 10, 64)
	}
	return n, due, err
}

// topic makes a new topic.
func (l *lab) topic(ctx context.Context, name string) (string, error) {
	l.topics++
	name = fmt.Sprintf("%s-%d", name, l.topics)
	cl, err := kgo.NewClient(kgo.SeedBrokers(l.seed))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	_, err = kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, name)
	return name, err
}

// request is a record that asks for message n at due. target "" makes a plain record of it.
func (l *lab) request(topic, target string, n int, due int64) *kgo.Record {
	r := &kgo.Record{Topic: topic, Value: l.body(n, due)}
	if target != "" {
		r.Headers = []kgo.RecordHeader{
			{Key: "cicada-target", Value: []byte(target)},
			{Key: "cicada-deliver-at", Value: strconv.AppendInt(nil, due, 10)},
		}
	}
	return r
}

// producer is a plain producer that is connected.
func (l *lab) producer(ctx context.Context) (*kgo.Client, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(l.seed))
	if err != nil {
		return nil, err
	}
	if err := cl.Ping(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	return cl, nil
}

// send produces n records with a producer of their own.
func (l *lab) send(ctx context.Context, n int, record func(i int) *kgo.Record) error {
	cl, err := l.producer(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	return produce(ctx, cl, n, record)
}

// produce returns when n records are acknowledged.
func produce(ctx context.Context, cl *kgo.Client, n int, record func(i int) *kgo.Record) error {
	var failed atomic.Pointer[error]
	for i := range n {
		cl.Produce(ctx, record(i), func(_ *kgo.Record, err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return fmt.Errorf("produce: %w", *err)
	}
	return nil
}

// consumer is a plain consumer that counts what it sees.
type consumer struct {
	cl   *kgo.Client
	want int
	bar  *bar

	over   chan struct{} // closed when everything was seen, or it gave up
	cancel context.CancelFunc
	gone   sync.WaitGroup

	// Of the goroutine until over is closed.
	seen  []bool
	count int
	twice int
	early int
	last  time.Time
	late  []time.Duration // in the order of arrival
	err   error
}

// consume begins to read a topic until want messages were seen.
func (l *lab) consume(ctx context.Context, topic string, want int, committed bool) (*consumer, error) {
	level := kgo.ReadUncommitted()
	if committed {
		level = kgo.ReadCommitted()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(l.seed), kgo.ConsumeTopics(topic),
		kgo.FetchIsolationLevel(level), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &consumer{
		cl: cl, want: want, bar: l.bar, over: make(chan struct{}), cancel: cancel,
		seen: make([]bool, want), late: make([]time.Duration, 0, want),
	}
	c.gone.Go(func() {
		defer close(c.over)
		c.run(ctx)
	})
	return c, nil
}

func (c *consumer) run(ctx context.Context) {
	for c.count < c.want && c.err == nil {
		fetches := c.cl.PollFetches(ctx)
		if ctx.Err() != nil {
			c.err = ctx.Err()
			return
		}
		now := time.Now()
		fetches.EachRecord(func(r *kgo.Record) { c.note(now, r) })
		c.bar.part(c.count, c.want)
	}
}

func (c *consumer) note(now time.Time, r *kgo.Record) {
	n, due, err := read(r.Value)
	switch {
	case err != nil || n >= len(c.seen):
		c.err = fmt.Errorf("a foreign message: %q: %w", r.Value, err)
		return
	case c.seen[n]:
		c.twice++
		return
	}
	c.seen[n], c.last = true, now
	c.count++
	late := now.Sub(time.UnixMilli(due))
	if late < 0 {
		c.early++
	}
	c.late = append(c.late, late)
}

// wait returns when everything was seen, or after giveUp. What is missing, early or there twice is an error.
func (c *consumer) wait(ctx context.Context) error {
	defer c.close()
	select {
	case <-c.over:
	case <-time.After(giveUp):
		c.cancel()
	case <-ctx.Done():
	}
	c.close()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case c.count < c.want:
		return fmt.Errorf("%d of %d messages came: %w", c.count, c.want, c.err)
	case c.err != nil:
		return c.err
	case c.twice > 0 || c.early > 0:
		return fmt.Errorf("%d messages came twice, %d early", c.twice, c.early)
	}
	return nil
}

func (c *consumer) close() {
	c.cancel()
	c.gone.Wait()
	c.cl.Close()
}
