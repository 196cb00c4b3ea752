// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// What is worth a warning.
const (
	examineTimeout = 20 * time.Second // for all of it
	examineAnswer  = 3 * time.Second  // for one answer
	maxExamined    = 256              // streams whose windows are looked at

	shortRetention = 24 * time.Hour
	shortWindow    = time.Minute // a lost answer is asked for again after some tens of seconds
	fullPercent    = 90

	clockNote = 500 * time.Millisecond
	clockBad  = 2 * time.Second // the daemon itself does not follow such a step (rule R21)
)

// Examine looks at a system and at what sources need of it, from here, and changes nothing:
// reachable, JetStream, streams, consumers, permissions, and what costs messages. Permissions are
// tried with requests that no server can carry out. The errors of sources' settings are told too.
func Examine(ctx context.Context, cfg Config, sources []SourceConfig) []broker.Finding {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	x := &examiner{}
	cfg, err := cfg.complete()
	if err != nil {
		x.say(broker.Bad, "configured", "%v", err)
		return x.found
	}
	x.cfg = &cfg
	cfg.AckTimeout = min(cfg.AckTimeout, examineAnswer)
	x.nc, err = cfg.connect(nats.RetryOnFailedConnect(false), nats.NoReconnect(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // why asks for them
	if err != nil {
		x.say(broker.Bad, "reachable", "%v", errors.Unwrap(err))
		return x.found
	}
	defer x.nc.Close()
	x.server()
	if x.js, err = jetstream.New(x.nc, jetstream.WithDefaultTimeout(cfg.AckTimeout)); err != nil {
		x.say(broker.Bad, "jetstream", "%v", err)
		return x.found
	}
	if !x.account(ctx) {
		return x.found
	}
	for _, sc := range sources {
		if sc, err = sc.complete(&cfg); err != nil {
			x.say(broker.Bad, "source "+sc.Stream, "%v", err)
			continue
		}
		x.source(ctx, &sc)
	}
	x.windows(ctx, sources)
	x.clock()
	return x.found
}

type examiner struct {
	cfg   *Config
	nc    *nats.Conn
	js    jetstream.JetStream
	found []broker.Finding

	offset, slack time.Duration // of the server's clock, and how far off that may be
	told          bool          // its time was

	said error // the last error of the connection that was told
}

func (x *examiner) say(v broker.Verdict, check, format string, args ...any) {
	x.found = append(x.found, broker.Finding{
		Check: check, Verdict: v, Detail: brief(fmt.Sprintf(format, args...)),
	})
}

// soon is ctx, for as long as one answer may take.
func (x *examiner) soon(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, x.cfg.AckTimeout)
}

// why is err, or the permission that is missing: the request itself is only never answered. The
// connection has the server's word before the answer of the flush; its handlers are told later.
func (x *examiner) why(err error) error {
	_ = x.nc.FlushTimeout(examineAnswer)
	last := x.nc.LastError()
	if last == nil || last == x.said { //nolint:errorlint // the same value, not the same kind
		return err
	}
	x.said = last
	return last
}

// server looks at the server itself.
func (x *examiner) server() {
	version := x.nc.ConnectedServerVersion()
	x.say(broker.Good, "reachable", "server %s, version %s", x.nc.ConnectedServerName(), version)
	if !x.nc.HeadersSupported() {
		x.say(broker.Bad, "server version", "%s knows no headers, by which records ask", version)
	} else if cannotSetBack(version) {
		x.say(broker.Note, "server version", "%s cannot set consumers back (2.14 can): they are "+
			"deleted and made again, and streams with interest retention are not read", version)
	}
	if most := x.nc.MaxPayload(); most < delay.MaxBodyBytes {
		x.say(broker.Note, "max_payload", "the server takes %d bytes at most: larger messages for it "+
			"become dead letters", most)
	}
}

// cannotSetBack reports whether a version is known to be below 2.14, as resetLevel is of streams.
func cannotSetBack(version string) bool {
	const since, sinceMinor = 2, 14
	a, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	b, _, _ := strings.Cut(rest, ".")
	major, err := strconv.Atoi(a)
	minor, err2 := strconv.Atoi(b)
	return err == nil && err2 == nil && (major < since || major == since && minor < sinceMinor)
}

// account asks whether there is JetStream for us, and whether there is room.
func (x *examiner) account(ctx context.Context) bool {
	ctx, cancel := x.soon(ctx)
	defer cancel()
	info, err := x.js.AccountInfo(ctx)
	if err != nil {
		x.say(broker.Bad, "jetstream", "%v", x.why(err))
		return false
	}
	if most := info.Limits.MaxStore; most > 0 && info.Store >= uint64(most)/100*fullPercent {
		x.say(broker.Warn, "jetstream", "%d of %d bytes of storage are used: when it is full nothing "+
			"is delivered here", info.Store, most)
		return true
	}
	x.say(broker.Good, "jetstream", "%d streams", info.Streams)
	return true
}

// source looks at one stream of requests.
func (x *examiner) source(ctx context.Context, sc *SourceConfig) {
	check := "source " + sc.Stream
	short, cancel := x.soon(ctx)
	defer cancel()
	before := x.cfg.Now()
	stream, err := x.js.Stream(short, sc.Stream)
	after := x.cfg.Now()
	if err != nil {
		x.say(broker.Bad, check, "%v", x.why(err))
		return
	}
	info := stream.CachedInfo()
	if !info.TimeStamp.IsZero() {
		x.told, x.slack = true, after.Sub(before)/2
		x.offset = info.TimeStamp.Sub(before.Add(x.slack))
	}
	x.say(broker.Good, check, "%d records, %d to %d", info.State.Msgs, info.State.FirstSeq,
		info.State.LastSeq)
	x.stream(check, sc, &info.Config)
	x.consumer(ctx, sc, stream)
	x.reject(ctx, sc)
}

// windows looks whether streams that messages may go to store once what is sent again (N3).
func (x *examiner) windows(ctx context.Context, sources []SourceConfig) {
	const check = "duplicate windows"
	read := make(map[string]bool, len(sources))
	for _, sc := range sources {
		read[sc.Stream] = true
	}
	ctx, cancel := x.soon(ctx)
	defer cancel()
	list := x.js.ListStreams(ctx)
	short, n := "", 0
	for info := range list.Info() {
		if n == maxExamined {
			break
		}
		if c := &info.Config; !read[c.Name] && c.Mirror == nil && len(c.Subjects) > 0 {
			n++
			if c.Duplicates < shortWindow {
				short = fmt.Sprintf("%s has %s", c.Name, c.Duplicates)
			}
		}
	}
	switch {
	case list.Err() != nil:
		x.say(broker.Note, check, "not looked at: %v", x.why(list.Err()))
	case short != "":
		x.say(broker.Warn, check, "%s: what is sent again later, because its answer was lost, is stored "+
			"twice there", short)
	case n > 0:
		x.say(broker.Good, check, "%d streams that are not read store once what is sent again within "+
			"%s or more", n, shortWindow)
	}
}

// clock tells how far the server's is from ours.
func (x *examiner) clock() {
	if !x.told {
		x.say(broker.Note, "clock", "the server does not tell its time")
		return
	}
	verdict := broker.Good
	switch {
	case x.offset.Abs() > clockBad+x.slack:
		verdict = broker.Bad
	case x.offset.Abs() > clockNote+x.slack:
		verdict = broker.Warn
	}
	x.say(verdict, "clock", "the server's is %s from ours", x.offset.Round(time.Millisecond))
}
