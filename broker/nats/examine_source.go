// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cicadamq/cicada/broker"
)

const (
	apiPrefix      = "$JS.API."
	expectedStream = "Nats-Expected-Stream"
	nobody         = "cicada-doctor" // no stream, and no ack, has this name

	// A server's answer to a record for another stream than the one that holds its subject.
	codeOtherStream = jetstream.ErrorCode(10060)
)

// impossible is no JSON: a server that reads it has let it pass, and does nothing.
var impossible = []byte("{")

// stream warns of what makes a stream of requests lose some, or hold none.
func (x *examiner) stream(check string, sc *SourceConfig, c *jetstream.StreamConfig) {
	if own := c.Mirror == nil && len(c.Sources) == 0; own && sc.Subject != "" &&
		!anyOverlap(c.Subjects, sc.Subject) {
		x.say(broker.Bad, check, "no record of it can be on subject %s: it holds %s", sc.Subject,
			strings.Join(c.Subjects, " "))
	}
	if c.MaxAge > 0 && c.MaxAge < shortRetention {
		x.say(broker.Warn, check, "max_age=%s: after an outage of more than that requests are missing",
			c.MaxAge)
	}
	if c.Discard == jetstream.DiscardOld && (c.MaxMsgs > 0 || c.MaxBytes > 0) {
		x.say(broker.Warn, check, "when it is full it drops the oldest requests, read or not: "+
			"discard=new refuses new ones instead")
	}
	if c.MaxMsgsPerSubject > 0 {
		x.say(broker.Warn, check, "max_msgs_per_subject=%d: of requests with one subject the older ones "+
			"are lost", c.MaxMsgsPerSubject)
	}
	if c.Storage == jetstream.MemoryStorage {
		x.say(broker.Warn, check, "storage=memory: requests are lost with their server")
	}
	if c.AllowMsgSchedules {
		x.say(broker.Warn, check, "allow_msg_schedules: the server acts on Nats-Schedule headers "+
			"itself, and Cicada does too")
	}
	if c.Retention == jetstream.LimitsPolicy {
		return
	}
	if !sc.Tier {
		x.say(broker.Warn, check, "it deletes what is acknowledged, and commit: local acknowledges what "+
			"the disk alone has: use commit: tier")
	}
	level, _ := strconv.Atoi(c.Metadata[levelKey])
	if c.Retention == jetstream.InterestPolicy && level < resetLevel {
		x.say(broker.Bad, check, "a stream with interest retention needs nats-server 2.14")
	}
}

// consumer looks at the durable consumer, and whether we may do with it what reading needs.
func (x *examiner) consumer(
	ctx context.Context, sc *SourceConfig, stream jetstream.Stream,
) {
	check := "consumer " + sc.Consumer
	create := apiPrefix + "CONSUMER.CREATE." + sc.Stream + "." + sc.Consumer
	if sc.Subject != "" {
		create += "." + sc.Subject
	}
	may := x.may(ctx, check, create)
	short, cancel := x.soon(ctx)
	defer cancel()
	old, err := stream.Consumer(short, sc.Consumer)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		if may {
			x.say(broker.Good, check, "the first start makes it")
		}
		return
	case errors.Is(err, jetstream.ErrNotPullConsumer):
		x.say(broker.Bad, check, "is one that pushes: choose another name")
		return
	case err != nil:
		x.say(broker.Bad, check, "%v", x.why(err))
		return
	}
	info := old.CachedInfo()
	switch {
	case info.Config.AckPolicy != jetstream.AckExplicitPolicy:
		x.say(broker.Bad, check, "its ack policy is not explicit: delete it, or choose another name")
	case info.Paused:
		x.say(broker.Bad, check, "is paused: nothing is read")
	case info.Config.FilterSubject != sc.Subject || len(info.Config.FilterSubjects) > 0:
		x.say(broker.Note, check, "selects other subjects than %q: the next start changes that",
			sc.Subject)
	}
	pull := pullSubject + sc.Stream + "." + sc.Consumer
	ack := ackSubject + sc.Stream + "." + sc.Consumer + "." + nobody
	if may && x.may(ctx, check, pull) && x.mayPublish(check, ack) {
		x.say(broker.Good, check, "%d records wait, %d are not acknowledged", info.NumPending,
			info.NumAckPending)
	}
}

// may tries whether a request about consumers reaches the server.
func (x *examiner) may(ctx context.Context, check, subject string) bool {
	ctx, cancel := x.soon(ctx)
	defer cancel()
	_, err := x.nc.RequestWithContext(ctx, subject, impossible)
	if err == nil || errors.Is(err, nats.ErrNoResponders) {
		return true
	}
	x.say(broker.Bad, check, "%v", x.why(err))
	return false
}

// mayPublish tries whether we may publish where nothing is answered.
func (x *examiner) mayPublish(check, subject string) bool {
	err := x.nc.Publish(subject, nil)
	if err = x.why(err); err == nil {
		return true
	}
	x.say(broker.Bad, check, "%v", err)
	return false
}

// reject looks whether the reject subject takes anything: it is given a record for another stream
// than the one which holds it.
func (x *examiner) reject(ctx context.Context, sc *SourceConfig) {
	if sc.RejectSubject == "" {
		x.say(broker.Note, "source "+sc.Stream, "no reject_subject: records that can be no request are "+
			"counted and logged, and nothing else")
		return
	}
	check := "reject subject " + sc.RejectSubject
	m := nats.NewMsg(sc.RejectSubject)
	m.Header.Set(expectedStream, nobody)
	ctx, cancel := x.soon(ctx)
	defer cancel()
	_, err := x.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	var answer *jetstream.APIError
	switch {
	case errors.As(err, &answer) && answer.ErrorCode == codeOtherStream:
		x.say(broker.Good, check, "a stream holds it")
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		x.say(broker.Bad, check, "no stream holds it")
	case err != nil:
		x.say(broker.Bad, check, "%v", x.why(err))
	default:
		x.say(broker.Bad, check, "took a record that it must refuse: no stream of JetStream holds it")
	}
}

// anyOverlap reports whether a subject can be selected by want and be one of any of subjects.
func anyOverlap(subjects []string, want string) bool {
	for _, s := range subjects {
		if overlap(strings.Split(s, "."), strings.Split(want, ".")) {
			return true
		}
	}
	return false
}

func overlap(a, b []string) bool {
	for i := range min(len(a), len(b)) {
		switch {
		case a[i] == ">" || b[i] == ">":
			return true
		case a[i] != b[i] && a[i] != "*" && b[i] != "*":
			return false
		}
	}
	return len(a) == len(b)
}
