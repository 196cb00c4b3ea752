// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// pullAll reads the last n messages of a delay level's queue, the way the simplest loop does: one
// connection, one request after the other. It returns messages per second.
func pullAll(ctx context.Context, broker string, queue, n int) (float64, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", broker)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	c := &puller{conn: conn, in: bufio.NewReaderSize(conn, 1<<20), queue: strconv.Itoa(queue)}
	_, end, _, err := c.pull(0)
	if err != nil {
		return 0, err
	}
	began, got := time.Now(), 0
	for at := end - int64(n); at < end; {
		messages, _, next, err := c.pull(at)
		if err != nil {
			return 0, err
		}
		if messages == 0 {
			return 0, fmt.Errorf("pull from %d: nothing", at)
		}
		got, at = got+messages, next
	}
	return float64(got) / time.Since(began).Seconds(), nil
}

type puller struct {
	conn  net.Conn
	in    *bufio.Reader
	queue string
	body  []byte
}

// pull reads up to 32 messages from an offset, and counts them.
func (c *puller) pull(from int64) (messages int, end, next int64, err error) {
	header, err := json.Marshal(map[string]any{
		"code": 11, "language": "OTHER", "opaque": 1, "flag": 0, "version": 475,
		"serializeTypeCurrentRPC": "JSON", "extFields": map[string]string{
			"consumerGroup": "plain-loop", "topic": "SCHEDULE_TOPIC_XXXX", "queueId": c.queue,
			"queueOffset": strconv.FormatInt(from, 10), "maxMsgNums": "32", "sysFlag": "4",
			"commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*",
			"subVersion": "0", "expressionType": "TAG",
		},
	})
	if err != nil {
		return 0, 0, 0, err
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(4+len(header)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(header)))
	if _, err := c.conn.Write(append(frame, header...)); err != nil {
		return 0, 0, 0, err
	}
	var lengths [8]byte // of the frame, and of its header
	if _, err := io.ReadFull(c.in, lengths[:]); err != nil {
		return 0, 0, 0, err
	}
	head := int(binary.BigEndian.Uint32(lengths[4:]) & 0xffffff)
	c.body = append(c.body[:0], make([]byte, int(binary.BigEndian.Uint32(lengths[:]))-4)...)
	if _, err := io.ReadFull(c.in, c.body); err != nil {
		return 0, 0, 0, err
	}
	var answer struct {
		Code      int               `json:"code"`
		Remark    string            `json:"remark"`
		ExtFields map[string]string `json:"extFields"`
	}
	if err := json.Unmarshal(c.body[:head], &answer); err != nil {
		return 0, 0, 0, err
	}
	if answer.Code != 0 {
		return 0, 0, 0, fmt.Errorf("pull: code %d: %s", answer.Code, answer.Remark)
	}
	if end, err = strconv.ParseInt(answer.ExtFields["maxOffset"], 10, 64); err != nil {
		return 0, 0, 0, err
	}
	if next, err = strconv.ParseInt(answer.ExtFields["nextBeginOffset"], 10, 64); err != nil {
		return 0, 0, 0, err
	}
	for at := head; at < len(c.body); messages++ {
		length := int(binary.BigEndian.Uint32(c.body[at:]))
		if length < 4 || at+length > len(c.body) {
			return 0, 0, 0, errors.New("pull: a message that is longer than the answer")
		}
		at += length
	}
	return messages, end, next, nil
}
