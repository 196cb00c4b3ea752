// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// The properties that every message carries.
const (
	propertyID         = "cicada-id"
	propertyGeneration = "cicada-generation" // when it is not the first
	propertyDue        = "cicada-due"
	propertyFiredAt    = "cicada-fired-at"
	propertyAttempt    = "cicada-attempt"
	propertyKey        = "cicada-key"
)

// maxUniqueKey bounds a unique key that a caller brings along; clients make ones of 32.
const maxUniqueKey = 128

// ownNames are the properties that RocketMQ's brokers and clients act on. Only KEYS, TAGS and
// UNIQ_KEY are a caller's to set (Q4).
var ownNames = [...]string{
	"ARRIVE_TIME", "BORN_HOST", "BORN_TIMESTAMP", "BUYER_ID", "CHECK_IMMUNITY_TIME_IN_SECONDS",
	"CLUSTER", "CONSUME_START_TIME", "CORRELATION_ID", "DELAY", "DUP_INFO", "EXTEND_UNIQ_INFO",
	"FIRST_POP_TIME", "INNER_BASE", "INNER_MULTI_DISPATCH", "INNER_MULTI_QUEUE_OFFSET", "INNER_NUM",
	"INSTANCE_ID", "MAX_OFFSET", "MAX_RECONSUME_TIMES", "MIN_OFFSET", "MSG_REGION",
	"ORIGIN_MESSAGE_ID", "PGROUP", "POP_CK", "POP_CK_OFFSET", "REAL_QID", "REAL_TOPIC",
	"RECONSUME_TIME", "REPLY_TO_CLIENT", "RETRY_TOPIC", "TRACE_CONTEXT", "TRACE_ON", "TRAN_MSG",
	"TRAN_PREPARED_QUEUE_OFFSET", "TTL", "WAIT", "__CRC32#", "__SHARDINGKEY",
	"__transactionId__",
}

// owned reports whether a property is not the caller's to set because RocketMQ acts on it.
func owned(name string) bool {
	return slices.Contains(ownNames[:], name) || strings.HasPrefix(name, "TIMER_") ||
		strings.HasPrefix(name, "TRANSACTION_")
}

// outgoing is the message for d, or why there can be none. Its strings and bytes alias d.
func outgoing(d *broker.Delivery) (m remoting.Outgoing, reason string) {
	p := make(remoting.Properties, 0, len(d.Headers)+8)
	unique, keys := UniqueKey(d.ID, d.Generation), ""
	for _, h := range d.Headers {
		switch {
		case !utf8.ValidString(h.Name) || !utf8.ValidString(h.Value):
			return m, "headers: a name or a value is not UTF-8"
		case h.Name == remoting.PropertyUniqueKey:
			if d.Generation <= 1 && plainKey(h.Value) {
				unique = h.Value
			}
		case h.Name == remoting.PropertyKeys:
			keys = h.Value
		case owned(h.Name):
			return m, "headers: " + h.Name + " is RocketMQ's own"
		case ours(h.Name):
		default:
			p = join(p, h)
		}
	}
	if !strings.ContainsAny(string(d.ID), " \t") {
		keys = strings.TrimSpace(keys + " " + string(d.ID))
	}
	add := func(name, value string) { p = append(p, remoting.Property{Name: name, Value: value}) }
	add(remoting.PropertyUniqueKey, unique)
	if keys != "" {
		add(remoting.PropertyKeys, keys)
	}
	add(remoting.PropertyWait, "true")
	add(propertyID, string(d.ID))
	if d.Generation > 1 {
		add(propertyGeneration, strconv.FormatUint(uint64(d.Generation), 10))
	}
	add(propertyDue, d.Due.String())
	add(propertyFiredAt, d.FiredAt.String())
	add(propertyAttempt, strconv.FormatUint(uint64(d.Attempt), 10))
	if d.RoutingKey != "" {
		add(propertyKey, d.RoutingKey)
	}
	m = remoting.Outgoing{Born: d.FiredAt, Properties: p, Body: d.Body}
	if err := p.Invalid(); err != nil {
		return m, "headers: " + brief(err.Error())
	}
	return m, ""
}

// ours reports whether a header is ours to write. A firing's own were written by the shard.
func ours(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, "cicada-") && lower != delay.HeaderScheduleID &&
		lower != delay.HeaderMissed
}

// join adds a header; values of a name that comes twice are joined by a comma, as in HTTP: there
// is one property of a name.
func join(p remoting.Properties, h delay.Header) remoting.Properties {
	for i := range p {
		if p[i].Name == h.Name {
			p[i].Value += "," + h.Value
			return p
		}
	}
	return append(p, remoting.Property{Name: h.Name, Value: h.Value})
}

func plainKey(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != "" && len(s) <= maxUniqueKey
}

// UniqueKey is the UNIQ_KEY, and so the message id that RocketMQ's clients show, of a generation
// of a message: always the same (R3). Its form is that of the clients: 32 hexadecimal digits, of
// which digits 20 to 27 say when in the month it was made. Those are 0, so that mqadmin, which
// looks from that instant on, finds the message.
func UniqueKey(id delay.ID, generation uint32) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], max(generation, 1))
	sum := sha256.Sum256(append(b[:], id...))
	key := strings.ToUpper(hex.EncodeToString(sum[:12]))
	return key[:20] + "00000000" + key[20:]
}

// same reports whether a message found under the key of d is d: keys may be a caller's, and a
// caller may give one twice (Q1).
func same(m *remoting.Message, d *broker.Delivery) bool {
	generation := "" // of the first
	if d.Generation > 1 {
		generation = strconv.FormatUint(uint64(d.Generation), 10)
	}
	return m.Properties.Value(propertyID) == string(d.ID) &&
		m.Properties.Value(propertyGeneration) == generation
}

const maxReason = 180

// brief cuts what a reason may hold.
func brief(s string) string {
	if len(s) <= maxReason {
		return s
	}
	cut := maxReason
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
