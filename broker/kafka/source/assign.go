// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/internal/planted"
)

// assign begins the work on partitions that came, before the first fetch from them: where the
// shard's cursor is, also when the group was committed further (that is the refill after the loss
// of a disk); else where the group is; else at the start of the topic.
func (n *session) assign(
	ctx context.Context, offsets map[string]map[int32]kgo.Offset,
) (map[string]map[int32]kgo.Offset, error) {
	<-n.ready
	mine := offsets[n.opts.Topic]
	if len(mine) == 0 {
		return offsets, nil
	}
	id, err := n.topicID(ctx)
	if err != nil {
		n.grumble.Warn("the identity of the topic is not known", zap.Error(err))
		return nil, err
	}
	numbers := make([]int32, 0, len(mine))
	for number, from := range mine {
		p := n.newPartition(ctx, id, number)
		group := from.EpochOffset().Offset // below 0: none
		p.committed = max(group, 0)
		next, known := n.in.Cursor(p.name)
		if known && !planted.Is(planted.GroupBelieved) {
			mine[number] = kgo.NewOffset().At(next)
			p.expect(next)
		} else if group >= 0 {
			p.expect(group)
		}
		n.log.Debug("where to begin", zap.Int32("partition", number), zap.Int64("cursor", next),
			zap.Bool("known", known), zap.Int64("group", group))
		numbers = append(numbers, number)
		n.begin(p)
	}
	n.counts.rebalances.Add(1)
	slices.Sort(numbers)
	n.log.Info("partitions came", zap.Int32s("partitions", numbers))
	return offsets, nil
}

// begin starts the worker of p, in the place of one that the client forgot to revoke.
func (n *session) begin(p *partition) {
	if old := n.partition(p.number); old != nil {
		n.stop([]*partition{old})
	}
	n.mu.Lock()
	n.parts[p.number] = p
	n.mu.Unlock()
	n.workers.Go(p.work)
}

// topicID asks for the identity of the topic: two topics of one name, one after the other, are two
// (rule R17). It is zero on brokers that give topics none (before 2.8).
func (n *session) topicID(ctx context.Context) ([16]byte, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = new(n.opts.Topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, n.cl)
	if err != nil {
		return [16]byte{}, fmt.Errorf("metadata of %s: %w", n.opts.Topic, err)
	}
	for _, t := range resp.Topics {
		if t.Topic == nil || *t.Topic != n.opts.Topic {
			continue
		}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return [16]byte{}, fmt.Errorf("metadata of %s: %w", n.opts.Topic, err)
		}
		return t.TopicID, nil
	}
	return [16]byte{}, fmt.Errorf("metadata of %s: %w", n.opts.Topic, kerr.UnknownTopicOrPartition)
}

// partitionName is the identity of a partition for ever. A topic without an id is named after a
// tilde, which is in no id.
func partitionName(cluster, topic string, id [16]byte, number int32) broker.Partition {
	which := "~" + topic
	if id != ([16]byte{}) {
		which = base64.RawURLEncoding.EncodeToString(id[:])
	}
	return broker.Partition("kafka:" + cluster + "/" + which + "/" +
		strconv.FormatInt(int64(number), 10))
}
