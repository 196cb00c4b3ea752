// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cicadamq/cicada/delay"
)

// Properties of a message that RocketMQ itself reads or writes.
const (
	PropertyUniqueKey    = "UNIQ_KEY" // the message's id, as its producer made it
	PropertyKeys         = "KEYS"     // words to find it by, separated by blanks
	PropertyTags         = "TAGS"
	PropertyWait         = "WAIT" // answer only when stored as configured
	PropertyDelayLevel   = "DELAY"
	PropertyDeliverAt    = "TIMER_DELIVER_MS"
	PropertyDelaySeconds = "TIMER_DELAY_SEC"
	PropertyDelayMillis  = "TIMER_DELAY_MS"
	PropertyTimerOut     = "TIMER_OUT_MS"
	PropertyTimerRolls   = "TIMER_ROLL_TIMES"
	PropertyTimerDelete  = "TIMER_DEL_UNIQKEY"
	PropertyTimerEnqueue = "TIMER_ENQUEUE_MS"
	PropertyRealTopic    = "REAL_TOPIC"
	PropertyRealQueue    = "REAL_QID"
	PropertyRetryTopic   = "RETRY_TOPIC"
	PropertyInnerNumber  = "INNER_NUM"
	PropertyMsgRegion    = "MSG_REGION"
	PropertyTraceSwitch  = "TRACE_ON"
	PropertyCluster      = "CLUSTER"
)

// Topics of a broker's own.
const (
	TopicSchedule    = "SCHEDULE_TOPIC_XXXX"
	TopicTimer       = "rmq_sys_wheel_timer"
	topicDefault     = "TBW102" // whose settings a topic gets that is made by sending to it
	queuesDefault    = 8
	RetryTopicPrefix = "%RETRY%"
	DeadTopicPrefix  = "%DLQ%"
)

// Property is a name and a value, neither holding the bytes 1 and 2.
type Property struct{ Name, Value string }

// Properties are those of one message, in the order in which they are stored.
type Properties []Property

const (
	nameEnd  = '\x01'
	valueEnd = '\x02'
	// MaxPropertyBytes bounds the encoded properties: their length is a signed 16-bit number, and
	// the broker adds some of its own.
	MaxPropertyBytes = math.MaxInt16 - 1024
)

// Get is the value of a name; of several the last, as the broker has it.
func (p Properties) Get(name string) (string, bool) {
	for _, e := range slices.Backward(p) {
		if e.Name == name {
			return e.Value, true
		}
	}
	return "", false
}

// Value is Get without the question.
func (p Properties) Value(name string) string {
	v, _ := p.Get(name)
	return v
}

// Encode writes p as it is stored. A name or a value that cannot be written, and more than
// MaxPropertyBytes, wrap delay.ErrInvalid.
func (p Properties) Encode() (string, error) {
	b, err := p.appendTo(make([]byte, 0, p.size()), MaxPropertyBytes)
	return string(b), err
}

// size is the length of the written form.
func (p Properties) size() (n int) {
	for _, e := range p {
		n += len(e.Name) + len(e.Value) + 2
	}
	return n
}

// Invalid is the error that Encode gives, or nil.
func (p Properties) Invalid() error { return p.check(MaxPropertyBytes) }

func (p Properties) check(most int) error {
	if n := p.size(); n > most {
		return fmt.Errorf("%w: %d bytes of properties, RocketMQ takes %d", delay.ErrInvalid, n, most)
	}
	for _, e := range p {
		if e.Name == "" || !writable(e.Name) || !writable(e.Value) {
			return fmt.Errorf("%w: property %.40q cannot be written", delay.ErrInvalid, e.Name)
		}
	}
	return nil
}

// appendTo appends the written form to dst; most is its limit.
func (p Properties) appendTo(dst []byte, most int) ([]byte, error) {
	if err := p.check(most); err != nil {
		return dst, err
	}
	for _, e := range p {
		dst = append(dst, e.Name...)
		dst = append(dst, nameEnd)
		dst = append(dst, e.Value...)
		dst = append(dst, valueEnd)
	}
	return dst, nil
}

// writable reports whether s holds nothing that ends a name or a value.
func writable(s string) bool {
	return strings.IndexByte(s, nameEnd) < 0 && strings.IndexByte(s, valueEnd) < 0
}

// ParseProperties reads stored properties. What is no pair is left out, as by the broker.
func ParseProperties(s string) Properties {
	if s == "" {
		return nil
	}
	p := make(Properties, 0, strings.Count(s, string(rune(nameEnd))))
	for s != "" {
		var pair string
		pair, s, _ = strings.Cut(s, string(rune(valueEnd)))
		name, value, ok := strings.Cut(pair, string(rune(nameEnd)))
		if ok && name != "" {
			p = append(p, Property{name, value})
		}
	}
	return p
}
