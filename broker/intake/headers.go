// SPDX-License-Identifier: Apache-2.0

package intake

import "strings"

// field is what a header can say.
type field uint8

const (
	fieldNone field = iota // known, and without a meaning here
	fieldDeliverAt
	fieldDelay
	fieldSchedule
	fieldTimeZone
	fieldMisfire
	fieldMisfireLimit
	fieldUntil
	fieldCount
	fieldJitter
	fieldTarget
	fieldKey
	fieldID
	fieldTTL
	fieldNotAfter
	fieldSpread
	fieldReplace
	fieldMaxWait
	fieldMaxAttempts
	fieldBackoff
	fieldCancel
	fields
)

var scheduleFields = [...]field{
	fieldSchedule, fieldTimeZone, fieldMisfire, fieldMisfireLimit, fieldUntil, fieldCount,
	fieldJitter,
}

// form is how a header's value is written.
type form uint8

const (
	formInstant    form = iota // RFC 3339, or epoch milliseconds
	formRFC3339                //
	formSeconds                // epoch seconds
	formMillis                 // epoch milliseconds
	formDuration               // 1h30m, 2d, PT90S, or milliseconds
	formForSeconds             // seconds
	formForMillis              // milliseconds
	formTTL                    // seconds, a Go duration, or never
	formLevel                  // 1 to 18: a delay level of RocketMQ
	formText                   //
	formTopic                  // a topic of the source's broker
	formSubject                // a subject of the source's broker
	formNATS                   // @at and RFC 3339, or an expression
	formMisfire                //
	formCount                  // a whole number from 1
	formTrue                   // true or false
)

var formTexts = [...]string{
	formInstant:    "RFC 3339 with an offset, or epoch milliseconds",
	formRFC3339:    "RFC 3339 with an offset",
	formSeconds:    "epoch seconds",
	formMillis:     "epoch milliseconds",
	formDuration:   "`90s`, `1h30m`, `2d`, `PT90S`, or milliseconds",
	formForSeconds: "seconds",
	formForMillis:  "milliseconds",
	formTTL:        "seconds, a Go duration, or `never`",
	formLevel:      "1 to 18: 1s 5s 10s 30s, 1m to 10m, 20m, 30m, 1h, 2h",
	formText:       "text",
	formTopic:      "a topic of the same broker",
	formSubject:    "a subject of the same broker",
	formNATS:       "`@at` and RFC 3339, `@every`, `@daily`, or cron",
	formMisfire:    "`fire_once`, `fire_all` or `skip`",
	formCount:      "a whole number from 1",
	formTrue:       "`true` or `false`",
}

// entry is a header that is understood.
type entry struct {
	name  string
	field field
	form  form
	says  string // for the documentation
	keep  bool   // the receiver gets it too
	weak  bool   // it counts only where no other header says the same
}

// prefix begins the names that are ours, in any case.
const prefix = "cicada-"

var canonical = [...]entry{
	{name: "cicada-deliver-at", field: fieldDeliverAt, form: formInstant, says: "due then"},
	{name: "cicada-delay", field: fieldDelay, form: formDuration,
		says: "due so long after its broker got it"},
	{name: "cicada-target", field: fieldTarget, form: formText, says: "where it goes"},
	{name: "cicada-key", field: fieldKey, form: formText,
		says: "routing key; without it the record's key, unless that is the id"},
	{name: "cicada-id", field: fieldID, form: formText,
		says: "the message's id; without it where the record lies"},
	{name: "cicada-ttl", field: fieldTTL, form: formDuration, says: "expires so long after due"},
	{name: "cicada-not-after", field: fieldNotAfter, form: formInstant, says: "expires then"},
	{name: "cicada-spread", field: fieldSpread, form: formDuration,
		says: "due at a stable point between due and due + spread"},
	{name: "cicada-schedule", field: fieldSchedule, form: formText,
		says: "recurring: `@every 5m`, `@daily`, cron of five or six fields"},
	{name: "cicada-time-zone", field: fieldTimeZone, form: formText, says: "of the schedule"},
	{name: "cicada-misfire", field: fieldMisfire, form: formMisfire,
		says: "what becomes of missed firings"},
	{name: "cicada-misfire-limit", field: fieldMisfireLimit, form: formCount,
		says: "with `fire_all`, up to 1000"},
	{name: "cicada-until", field: fieldUntil, form: formInstant, says: "no firing after it"},
	{name: "cicada-count", field: fieldCount, form: formCount,
		says: "the schedule ends after so many"},
	{name: "cicada-jitter", field: fieldJitter, form: formDuration,
		says: "every firing is late by the same stable part of it"},
	{name: "cicada-replace", field: fieldReplace, form: formTrue,
		says: "other content under the same id replaces it"},
	{name: "cicada-max-wait", field: fieldMaxWait, form: formDuration,
		says: "with replace: the due moves at most so far beyond the first"},
	{name: "cicada-max-attempts", field: fieldMaxAttempts, form: formCount,
		says: "then it is dead"},
	{name: "cicada-backoff", field: fieldBackoff, form: formDuration,
		says: "first pause between attempts"},
	{name: "cicada-cancel", field: fieldCancel, form: formTrue,
		says: "withdraws the id; nothing else may be given"},
	{name: HeaderError, field: fieldNone, form: formText, says: "ignored: from a reject topic"},
	{name: HeaderSource, field: fieldNone, form: formText, says: "ignored: from a reject topic"},
}

// Those of others, for each kind of source. A header whose unit its project does not state is not
// here: seconds taken for milliseconds would be due at once.
var kafkaAliases = [...]entry{
	{name: "scheduler-epoch", field: fieldDeliverAt, form: formSeconds,
		says: "kafka-message-scheduler"},
	{name: "scheduler-target-topic", field: fieldTarget, form: formTopic,
		says: "kafka-message-scheduler"},
	{name: "scheduler-target-key", field: fieldKey, form: formText,
		says: "kafka-message-scheduler"},
	{name: "kafka-scheduler-cron", field: fieldSchedule, form: formText, says: "kafka-scheduler"},
	{name: "x-delay", field: fieldDelay, form: formForMillis, says: "RabbitMQ"},
	{name: "x-opt-delivery-time", field: fieldDeliverAt, form: formMillis,
		says: "AMQP 1.0, Artemis"},
	{name: "x-opt-delivery-delay", field: fieldDelay, form: formForMillis,
		says: "AMQP 1.0, Artemis"},
	{name: "_AMQ_SCHED_DELIVERY", field: fieldDeliverAt, form: formMillis, says: "Artemis"},
	{name: "AMQ_SCHEDULED_DELAY", field: fieldDelay, form: formForMillis, says: "ActiveMQ"},
	{name: "AMQ_SCHEDULED_CRON", field: fieldSchedule, form: formText, says: "ActiveMQ"},
	{name: "ce_expirytime", field: fieldNotAfter, form: formRFC3339,
		says: "CloudEvents; delivered too",
		keep: true},
}

var natsAliases = [...]entry{
	{name: "Nats-Schedule", field: fieldSchedule, form: formNATS, says: "NATS message schedules"},
	{name: "Nats-Schedule-Target", field: fieldTarget, form: formSubject,
		says: "NATS message schedules"},
	{name: "Nats-Schedule-TTL", field: fieldTTL, form: formTTL, says: "NATS message schedules"},
	{name: "Nats-Schedule-Time-Zone", field: fieldTimeZone, form: formText,
		says: "NATS message schedules"},
	{name: "Nats-Msg-Id", field: fieldID, form: formText,
		says: "JetStream; only where there is no `cicada-id`", weak: true},
	{name: "x-delay", field: fieldDelay, form: formForMillis, says: "RabbitMQ"},
	{name: "ce-expirytime", field: fieldNotAfter, form: formRFC3339,
		says: "CloudEvents; delivered too",
		keep: true},
}

var rocketmqAliases = [...]entry{
	{name: "TIMER_DELIVER_MS", field: fieldDeliverAt, form: formMillis, says: "RocketMQ timer"},
	{name: "TIMER_DELAY_MS", field: fieldDelay, form: formForMillis, says: "RocketMQ timer"},
	{name: "TIMER_DELAY_SEC", field: fieldDelay, form: formForSeconds, says: "RocketMQ timer"},
	{name: "DELAY", field: fieldDelay, form: formLevel,
		says: "RocketMQ delay level, as configured by default"},
	{name: "__STARTDELIVERTIME", field: fieldDeliverAt, form: formMillis, says: "Alibaba Cloud"},
}

func aliases(k Kind) []entry {
	switch k {
	case Kafka:
		return kafkaAliases[:]
	case NATS:
		return natsAliases[:]
	case RocketMQ:
		return rocketmqAliases[:]
	}
	return nil
}

// lookup finds a header by its name: ours in any case, because some libraries change it, those of
// others exactly as they are written. nil is none.
func lookup(k Kind, name string) *entry {
	if !isOurs(name) {
		return exact(aliases(k), name)
	}
	ours := canonical[:]
	if e := exact(ours, name); e != nil {
		return e
	}
	for i := range ours {
		if e := &ours[i]; len(e.name) == len(name) && strings.EqualFold(e.name, name) {
			return e
		}
	}
	return nil
}

func exact(table []entry, name string) *entry {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}

func isOurs(name string) bool { return hasPrefixFold(name, prefix) }

// isOfServer reports whether a header is for the NATS server: it would act on whatever is sent
// with it.
func isOfServer(name string) bool { return hasPrefixFold(name, "Nats-") }

// isSchedule reports whether a header belongs to the request for a schedule, as opposed to what the
// server writes on a message that it made for one.
func isSchedule(name string) bool {
	return hasPrefixFold(name, "Nats-Schedule-") && !strings.EqualFold(name, "Nats-Schedule-Next")
}

func hasPrefixFold(name, start string) bool {
	return len(name) >= len(start) && strings.EqualFold(name[:len(start)], start)
}
