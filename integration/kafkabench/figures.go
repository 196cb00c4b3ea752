// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// lab is one run.
type lab struct {
	options

	dir    string
	seed   string // the broker's address
	bar    *bar
	noise  []byte
	topics int
	rows   []row
}

// measure does all that was asked for.
func (l *lab) measure(ctx context.Context) ([]row, error) {
	l.noise = noise()
	l.bar.step("warm up")
	if _, err := l.plain(ctx); err != nil {
		return nil, fmt.Errorf("warm up: %w", err)
	}
	if slices.Contains(l.parts, "intake") {
		if err := l.intake(ctx); err != nil {
			return nil, fmt.Errorf("intake: %w", err)
		}
	}
	source, err := l.topic(ctx, "requests")
	if err != nil {
		return nil, err
	}
	d, err := l.serve(ctx, source)
	if err != nil {
		return nil, err
	}
	defer func() { d.stop() }()
	s := site{lab: l, daemon: d, source: source}
	for _, p := range []struct {
		name string
		do   func(context.Context) error
	}{{"release", s.releases}, {"burst", s.bursts}, {"steady", s.even}} {
		if !slices.Contains(l.parts, p.name) {
			continue
		}
		if err := p.do(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", p.name, err, d.tail())
		}
	}
	return l.rows, nil
}

// rate is a speed and what it costs.
type rate struct {
	perSecond float64
	cpu       float64 // microseconds of the daemon for each message; 0 where nobody can tell
}

// figure is one of several that take turns.
type figure struct {
	name string
	do   func() (rate, error)
	all  []rate
}

// turns measures rivals, each as often as asked for.
func (l *lab) turns(what string, rivals ...*figure) error {
	for i := range l.repeat {
		for _, f := range rivals {
			l.bar.step(fmt.Sprintf("%s %d/%d: %s", what, i+1, l.repeat, f.name))
			r, err := f.do()
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			f.all = append(f.all, r)
		}
	}
	return nil
}

// row is the median, for the table.
func (f *figure) row() row {
	var speeds, cpus []float64
	for _, r := range f.all {
		speeds, cpus = append(speeds, r.perSecond), append(cpus, r.cpu)
	}
	r := row{Figure: f.name, Value: median(speeds), Unit: perSecond, CPU: median(cpus)}
	for _, v := range speeds {
		r.All = append(r.All, float64(int(v)))
	}
	return r
}

// intake: messages a second from a topic to the local disk, beside batches over the API and beside
// a consumer that does nothing with them.
func (l *lab) intake(ctx context.Context) error {
	l.bar.step("intake: requests into a topic")
	topic, err := l.topic(ctx, "intake")
	if err != nil {
		return err
	}
	now, rng := time.Now().UnixMilli(), rand.New(rand.NewPCG(1, 1))
	err = l.send(ctx, l.messages, func(i int) *kgo.Record {
		due := now + 3_600_000 + rng.Int64N(23*3_600_000)
		return l.request(topic, "pull:q", i, due)
	})
	if err != nil {
		return err
	}
	consumer := &figure{
		name: "plain consumer of the requests", do: func() (rate, error) { return l.readAll(ctx, topic) },
	}
	api := &figure{
		name: "intake over the API, ids of the server",
		do:   func() (rate, error) { return l.overAPI(ctx, "server") },
	}
	named := &figure{
		name: "intake over the API, ids of the client",
		do:   func() (rate, error) { return l.overAPI(ctx, "client") },
	}
	ours := &figure{
		name: "intake from Kafka to durable",
		do:   func() (rate, error) { return l.fromKafka(ctx, topic) },
	}
	if err := l.turns("intake", consumer, api, ours, named); err != nil {
		return err
	}
	r := ours.row()
	r.Of, r.Ratio, r.Least = "the API", r.Value/api.row().Value, 1
	r.Note = fmt.Sprintf("with ids of the client %.0f %%", 100*r.Value/named.row().Value)
	l.rows = append(l.rows, consumer.row(), api.row(), named.row(), r)
	return nil
}

// readAll is how fast a plain consumer reads a topic.
func (l *lab) readAll(ctx context.Context, topic string) (rate, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(l.seed), kgo.ConsumeTopics(topic))
	if err != nil {
		return rate{}, err
	}
	defer cl.Close()
	var first time.Time
	begun, n := 0, 0
	for n < l.messages {
		f := cl.PollFetches(ctx)
		if err := f.Err0(); err != nil {
			return rate{}, err
		}
		n += f.NumRecords()
		if first.IsZero() {
			first, begun = time.Now(), n
		}
		l.bar.part(n, l.messages)
	}
	return rate{perSecond: float64(n-begun) / time.Since(first).Seconds()}, nil
}

// overAPI is what the program's own bench reaches against a daemon of its own, with batches of 100.
func (l *lab) overAPI(ctx context.Context, ids string) (rate, error) {
	d, err := l.serve(ctx, "")
	if err != nil {
		return rate{}, err
	}
	defer d.stop()
	cpu := d.cpu()
	cmd := exec.CommandContext(ctx, l.program, "bench", "--server", d.base, "--messages",
		fmt.Sprint(l.messages), "--size", fmt.Sprint(bodyBytes), "--due", "1h..24h", "--ids", ids,
		"--json")
	cmd.Env = without(cmd.Environ(), "CICADA_")
	text, err := cmd.Output()
	if err != nil {
		return rate{}, fmt.Errorf("bench: %w", err)
	}
	var report struct {
		Accepted     int
		AcceptedPerS float64 `json:"accepted_per_s"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return rate{}, fmt.Errorf("bench: %w: %s", err, text)
	}
	if report.Accepted != l.messages {
		return rate{}, fmt.Errorf("bench: %d of %d accepted", report.Accepted, l.messages)
	}
	return rate{report.AcceptedPerS, (d.cpu() - cpu) * 1e6 / float64(l.messages)}, nil
}

// fromKafka is how fast a daemon stores what waits in a topic, from the moment at which it has
// begun.
func (l *lab) fromKafka(ctx context.Context, topic string) (rate, error) {
	d, err := l.serve(ctx, topic)
	if err != nil {
		return rate{}, err
	}
	defer d.stop()
	var first time.Time
	begun := 0
	for deadline := time.Now().Add(giveUp); ; {
		n, err := d.accepted(ctx)
		switch {
		case err != nil:
			return rate{}, err
		case n >= l.messages:
			took := time.Since(first)
			return rate{
				float64(n-begun) / took.Seconds(), d.cpu() * 1e6 / float64(l.messages),
			}, nil
		case time.Now().After(deadline):
			return rate{}, fmt.Errorf("%d of %d taken: %s", n, l.messages, d.tail())
		case n > 0 && first.IsZero():
			first, begun = time.Now(), n
		}
		l.bar.part(n, l.messages)
		time.Sleep(lookEvery)
	}
}

// plain is messages a second from a plain producer to a plain consumer.
func (l *lab) plain(ctx context.Context) (rate, error) {
	topic, err := l.topic(ctx, "plain")
	if err != nil {
		return rate{}, err
	}
	all := make([]*kgo.Record, l.messages)
	for i := range all {
		all[i] = l.request(topic, "", i, time.Now().UnixMilli())
	}
	cl, err := l.producer(ctx)
	if err != nil {
		return rate{}, err
	}
	defer cl.Close()
	c, err := l.consume(ctx, topic, l.messages, false)
	if err != nil {
		return rate{}, err
	}
	began := time.Now()
	if err := produce(ctx, cl, l.messages, func(i int) *kgo.Record { return all[i] }); err != nil {
		c.close()
		return rate{}, err
	}
	if err := c.wait(ctx); err != nil {
		return rate{}, err
	}
	return rate{perSecond: float64(l.messages) / c.last.Sub(began).Seconds()}, nil
}

// quantile of sorted values.
func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
