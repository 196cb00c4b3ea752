// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cicadamq/cicada/delay"
)

// Outgoing is a message to send.
type Outgoing struct {
	Flag       int32
	SysFlag    int32     // how Body is packed; in a batch it is not kept
	Reconsumed int32     // how often a consumer gave it back; in a batch it is not kept
	Born       delay.Due // when the producer made it; a batch has one for all
	Properties Properties
	Body       []byte
}

// Sent is what a broker says of what it stored.
type Sent struct {
	Queue int32
	// Offset in the queue: of the first message of a batch, in a timer's case of the timer's entry.
	Offset int64
	// MessageIDs are the broker's, one for each message, see ParseMessageID.
	MessageIDs []string
	// Recall is the handle by which a timer can be recalled; "" for other messages.
	Recall string
	// Code is OK, or FlushDiskTimeout, SlaveNotAvailable or FlushSlaveTimeout together with an error
	// of Outcome Unknown: the rest of Sent holds then too.
	Code int
}

func yesNo(on bool) string { return strconv.FormatBool(on) }

func itoa[T int | int32 | int64 | delay.Due](n T) string { return strconv.FormatInt(int64(n), 10) }

// sendFields are those of a send, by the one-letter names of V2.
func (c *Client) sendFields(
	topic string, queue int32, m *Outgoing, properties string, batch bool,
) map[string]string {
	return map[string]string{
		"a": c.cfg.Group, "b": topic, "c": topicDefault, "d": itoa(queuesDefault), "e": itoa(queue),
		"f": itoa(m.SysFlag & SysPacked), "g": itoa(m.Born), "h": itoa(m.Flag), "i": properties,
		"j": itoa(m.Reconsumed), "k": yesNo(false), "l": "0", "m": yesNo(batch),
	}
}

// Send stores one message in a queue of the topic at addr, a master. An error is an *Error. Brokers
// stumble over a request without a body, so a message with an empty one is Never; in a batch, of
// one too, they take it.
func (c *Client) Send(
	ctx context.Context, addr, topic string, queue int32, m *Outgoing,
) (Sent, error) {
	const request = "send"
	properties, err := m.Properties.Encode()
	if err == nil && len(m.Body) == 0 {
		err = fmt.Errorf("%w: an empty body goes in a batch only", delay.ErrInvalid)
	}
	if err != nil {
		return Sent{}, &Error{
			Request: request, Addr: addr, Code: answerNone, Outcome: Never, Err: err,
		}
	}
	return c.sent(ctx, request, addr, &Command{
		Code:   RequestSend,
		Fields: c.sendFields(topic, queue, m, properties, false),
		Body:   m.Body,
	})
}

// SendBatch stores messages in one queue, all of them or none, in their order. None may have a
// delay, and their bodies and properties together must fit the broker's maxMessageSize.
func (c *Client) SendBatch(
	ctx context.Context, addr, topic string, queue int32, batch []Outgoing,
) (Sent, error) {
	const request = "send batch"
	var body []byte
	born := delay.Due(0)
	for i := range batch {
		var err error
		if body, err = appendBatched(body, &batch[i]); err != nil {
			return Sent{}, &Error{
				Request: request, Addr: addr, Code: answerNone, Outcome: Never,
				Err: fmt.Errorf("message %d: %w", i, err),
			}
		}
		born = max(born, batch[i].Born)
	}
	return c.sent(ctx, request, addr, &Command{
		Code:   RequestSendBatch,
		Fields: c.sendFields(topic, queue, &Outgoing{Born: born}, "", true),
		Body:   body,
	})
}

// batchedMin is the length of a message in a batch without body and properties.
const batchedMin = 4 + 4 + 4 + 4 + 4 + 2

// appendBatched appends m as it stands in a batch.
func appendBatched(dst []byte, m *Outgoing) ([]byte, error) {
	be := binary.BigEndian
	properties, start := m.Properties.size(), len(dst)
	dst = slices.Grow(dst, batchedMin+len(m.Body)+properties)
	dst = be.AppendUint32(dst, uint32(batchedMin+len(m.Body)+properties))
	dst = be.AppendUint32(dst, 0) // magic and checksum: the broker makes its own
	dst = be.AppendUint32(dst, 0)
	dst = be.AppendUint32(dst, uint32(m.Flag))
	dst = be.AppendUint32(dst, uint32(len(m.Body)))
	dst = append(dst, m.Body...)
	dst = be.AppendUint16(dst, uint16(properties))
	dst, err := m.Properties.appendTo(dst, MaxPropertyBytes)
	if err != nil {
		return dst[:start], err
	}
	return dst, nil
}

// DecodeBatch decodes the body of a RequestSendBatch. Errors wrap delay.ErrCorrupt.
func DecodeBatch(b []byte) ([]Outgoing, error) {
	var all []Outgoing
	for len(b) > 0 {
		r := reader{b: b}
		size := int64(uint32(r.int32()))
		if size < batchedMin || size > int64(len(b)) || size > math.MaxInt32 {
			return nil, fmt.Errorf("%w: batched message %d: %d of %d bytes", delay.ErrCorrupt,
				len(all), size, len(b))
		}
		r.b = b[4:size]
		r.take(8)
		m := Outgoing{Flag: r.int32()}
		m.Body = r.take(int(r.int32()))
		m.Properties = ParseProperties(string(r.take(r.uint16())))
		if r.short || len(r.b) > 0 {
			return nil, fmt.Errorf("%w: batched message %d: its lengths disagree", delay.ErrCorrupt,
				len(all))
		}
		all, b = append(all, m), b[size:]
	}
	return all, nil
}

func (c *Client) sent(
	ctx context.Context, request, addr string, cmd *Command,
) (Sent, error) {
	r, err := c.call(ctx, request, addr, cmd, 0)
	if err != nil {
		return Sent{}, err
	}
	s := Sent{Code: r.Code, Recall: r.Fields["recallHandle"]}
	if r.Code != OK {
		err = answered(request, addr, r)
		if r.Code != FlushDiskTimeout && r.Code != SlaveNotAvailable && r.Code != FlushSlaveTimeout {
			return s, err
		}
	}
	if ids := r.Fields["msgId"]; ids != "" {
		s.MessageIDs = strings.Split(ids, ",")
	}
	queue, bad := strconv.ParseInt(r.Fields["queueId"], 10, 32)
	offset, worse := strconv.ParseInt(r.Fields["queueOffset"], 10, 64)
	if bad != nil || worse != nil {
		return s, &Error{
			Request: request, Addr: addr, Code: answerNone, Outcome: Unknown,
			Err: fmt.Errorf("%w: answer without queue and offset", delay.ErrCorrupt),
		}
	}
	s.Queue, s.Offset = int32(queue), offset
	return s, err
}
