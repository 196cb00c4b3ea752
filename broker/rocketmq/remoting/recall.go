// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/cicadamq/cicada/delay"
)

// RecallHandle names a pending timer: what a broker gives in the answer to a timer's send.
type RecallHandle struct {
	Topic     string
	Broker    string // its name
	DeliverAt delay.Due
	UniqueKey string
}

const recallVersion = "v1"

// String is the handle as brokers take it.
func (h RecallHandle) String() string {
	text := strings.Join([]string{
		recallVersion, h.Topic, h.Broker, strconv.FormatInt(int64(h.DeliverAt), 10), h.UniqueKey,
	}, " ")
	return base64.URLEncoding.EncodeToString([]byte(text))
}

// ParseRecallHandle reads a handle that a broker gave. What is none wraps delay.ErrInvalid.
func ParseRecallHandle(s string) (RecallHandle, error) {
	text, err := base64.URLEncoding.DecodeString(s)
	parts := strings.Split(string(text), " ")
	if err != nil || len(parts) != 5 || parts[0] != recallVersion {
		return RecallHandle{}, fmt.Errorf("%w: recall handle %.80q", delay.ErrInvalid, s)
	}
	at, err := strconv.ParseInt(parts[3], 10, 64)
	if err != nil || at < 0 {
		return RecallHandle{}, fmt.Errorf("%w: recall handle: instant %.40q", delay.ErrInvalid, parts[3])
	}
	return RecallHandle{
		Topic: parts[1], Broker: parts[2], DeliverAt: delay.Due(at), UniqueKey: parts[4],
	}, nil
}

// Recall asks a broker not to deliver a timer. That it answered means that it has noted the wish,
// not that the timer is still there (R19).
func (c *Client) Recall(ctx context.Context, addr string, h RecallHandle) error {
	_, err := c.ask(ctx, "recall", addr, &Command{
		Code: RequestRecall,
		Fields: map[string]string{
			"producerGroup": c.cfg.Group, "topic": h.Topic, "recallHandle": h.String(),
		},
	})
	return err
}
