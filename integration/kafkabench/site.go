// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// site is a daemon that takes requests from a topic.
type site struct {
	*lab

	daemon *daemon
	source string
}

// ahead is how long storing n requests may take at most, before they are due.
func ahead(n, try int) time.Duration {
	return time.Duration(1<<(try-1)) * (2*time.Second + time.Duration(n)*12*time.Microsecond)
}

const tries = 4

// schedule has n messages delivered to a new topic, each at when(i) after an instant at which all of
// them are stored, and returns that instant with a consumer of the topic.
func (s site) schedule(
	ctx context.Context, broker string, n int, when func(i int) time.Duration,
) (time.Time, *consumer, error) {
	for try := 1; try <= tries; try++ {
		topic, err := s.topic(ctx, "out")
		if err != nil {
			return time.Time{}, nil, err
		}
		before, err := s.daemon.accepted(ctx)
		if err != nil {
			return time.Time{}, nil, err
		}
		at := time.Now().Add(ahead(n, try)).Truncate(time.Millisecond)
		c, err := s.consume(ctx, topic, n, broker == exactly)
		if err != nil {
			return time.Time{}, nil, err
		}
		err = s.send(ctx, n, func(i int) *kgo.Record {
			return s.request(s.source, "kafka:"+broker+"/"+topic, i, at.Add(when(i)).UnixMilli())
		})
		if err == nil {
			err = s.stored(ctx, before+n)
		}
		if err != nil {
			c.close()
			return time.Time{}, nil, err
		}
		if time.Now().Before(at) {
			return at, c, nil
		}
		if err := c.wait(ctx); err != nil { // too late: nothing was measured
			return time.Time{}, nil, err
		}
	}
	return time.Time{}, nil, fmt.Errorf("%d messages were not stored in %v", n, ahead(n, tries))
}

// stored waits until so many messages are.
func (s site) stored(ctx context.Context, want int) error {
	for deadline := time.Now().Add(giveUp); ; time.Sleep(lookEvery) {
		n, err := s.daemon.accepted(ctx)
		switch {
		case err != nil:
			return err
		case n >= want:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%d of %d requests were stored", n, want)
		}
	}
}

// release is messages a second when all are due at one instant.
func (s site) release(ctx context.Context, broker string) (rate, error) {
	at, c, err := s.schedule(ctx, broker, s.messages, func(int) time.Duration { return 0 })
	if err != nil {
		return rate{}, err
	}
	time.Sleep(time.Until(at))
	cpu := s.daemon.cpu()
	if err := c.wait(ctx); err != nil {
		return rate{}, err
	}
	n := float64(s.messages)
	return rate{n / c.last.Sub(at).Seconds(), (s.daemon.cpu() - cpu) * 1e6 / n}, nil
}

func (s site) releases(ctx context.Context) error {
	plain := &figure{
		name: "plain producer and consumer", do: func() (rate, error) { return s.plain(ctx) },
	}
	idem := &figure{
		name: "release to Kafka, idempotent",
		do:   func() (rate, error) { return s.release(ctx, idempotent) },
	}
	once := &figure{
		name: "release to Kafka, exactly_once",
		do:   func() (rate, error) { return s.release(ctx, exactly) },
	}
	if err := s.turns("release", plain, idem, once); err != nil {
		return err
	}
	i, o := idem.row(), once.row()
	i.Goal, i.Of, i.Ratio, i.Least = 100_000, "plain", i.Value/plain.row().Value, 1.0/3
	o.Of, o.Ratio, o.Least = "idempotent", o.Value/i.Value, 0.7
	s.rows = append(s.rows, plain.row(), i, o)
	return nil
}

// lateness is how late the consumer saw messages.
func (s site) lateness(figure string, goal float64, c *consumer) {
	slices.Sort(c.late)
	at := func(q float64) float64 { return float64(quantile(c.late, q).Microseconds()) / 1000 }
	s.rows = append(s.rows, row{
		Figure: figure, Value: at(0.99), Unit: "ms p99", Goal: goal, Below: true,
		Note: fmt.Sprintf("p50 %.0f, most %.0f ms", at(0.5), at(1)),
	})
}

func (s site) bursts(ctx context.Context) error {
	for _, b := range []struct {
		within time.Duration
		words  string
		goal   float64
	}{{time.Second, "in one second", 1000}, {0, "at one instant", 0}} {
		s.bar.step("burst: due " + b.words)
		_, c, err := s.schedule(ctx, exactly, s.burst, func(i int) time.Duration {
			return time.Duration(i) * b.within / time.Duration(s.burst)
		})
		if err != nil {
			return err
		}
		if err := c.wait(ctx); err != nil {
			return err
		}
		s.lateness(fmt.Sprintf("%d due %s, exactly_once", s.burst, b.words), b.goal, c)
	}
	return nil
}

const (
	evenPause = 10 * time.Millisecond // between two handfuls
	evenDelay = time.Second
)

// even is a producer that asks for a message each millisecond, due a second later.
func (s site) even(ctx context.Context) error {
	s.bar.step("steady: 1,000 messages a second")
	topic, err := s.topic(ctx, "out")
	if err != nil {
		return err
	}
	n := 1000 * s.steady
	c, err := s.consume(ctx, topic, n, true)
	if err != nil {
		return err
	}
	began := time.Now()
	err = s.send(ctx, n, func(i int) *kgo.Record {
		at := began.Add(time.Duration(i) * time.Millisecond)
		if wait := time.Until(at); wait > 0 {
			time.Sleep(max(wait, evenPause))
		}
		return s.request(s.source, "kafka:"+exactly+"/"+topic, i, at.Add(evenDelay).UnixMilli())
	})
	if err != nil {
		c.close()
		return err
	}
	if err := c.wait(ctx); err != nil {
		return err
	}
	s.lateness("steady 1,000/s, exactly_once", 150, c)
	return nil
}
