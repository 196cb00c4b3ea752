// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cicadamq/cicada/broker"
)

// What is worth a warning.
const (
	examineTimeout   = 20 * time.Second // for all of it
	shortRetention   = 24 * time.Hour
	unknownOperation = -1 << 31 // of a broker that does not tell who may do what
)

// Examine looks at a cluster and at what sources need of it, and changes nothing: reachable,
// topics, permissions, and configurations that cost messages. The sources' Config is not looked at.
func Examine(ctx context.Context, cfg Config, sources []Options) []broker.Finding {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	fail := func(err error) []broker.Finding {
		return []broker.Finding{{Check: "reachable", Verdict: broker.Bad, Detail: err.Error()}}
	}
	cfg, err := cfg.Complete()
	if err != nil {
		return fail(err)
	}
	meta, err := reach(ctx, &cfg)
	if err != nil {
		return fail(err)
	}
	cl, err := cfg.Client(kgo.RetryTimeout(examineTimeout / 2))
	if err != nil {
		return fail(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	found := []broker.Finding{{
		Check: "reachable", Verdict: broker.Good,
		Detail: fmt.Sprintf("cluster %s, %d brokers", meta.Cluster, len(meta.Brokers)),
	}}
	e := &examination{cl: cl, adm: adm}
	for i := range sources {
		s := &sources[i]
		e.topic(ctx, "source "+s.Topic, s.Topic, kmsg.ACLOperationRead)
		e.config(ctx, s)
		e.group(ctx, s)
		if s.RejectTopic == "" {
			e.add("source "+s.Topic, broker.Note, "no reject_topic: records that can be no request are "+
				"counted and logged, and nothing else")
			continue
		}
		e.topic(ctx, "reject topic "+s.RejectTopic, s.RejectTopic, kmsg.ACLOperationWrite)
	}
	return append(found, e.found...)
}

// reach asks who is there, without the patience of what comes after.
func reach(ctx context.Context, cfg *Config) (kadm.Metadata, error) {
	cl, err := cfg.Client(kgo.RequestRetries(2))
	if err != nil {
		return kadm.Metadata{}, err
	}
	defer cl.Close()
	return kadm.NewClient(cl).BrokerMetadata(ctx)
}

type examination struct {
	cl    *kgo.Client
	adm   *kadm.Client
	found []broker.Finding
}

func (e *examination) add(check string, v broker.Verdict, format string, args ...any) {
	e.found = append(e.found, broker.Finding{
		Check: check, Verdict: v, Detail: fmt.Sprintf(format, args...),
	})
}

// topic asks whether a topic is there and we may do what we must.
func (e *examination) topic(ctx context.Context, check, name string, op kmsg.ACLOperation) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = new(name)
	req.Topics = append(req.Topics, t)
	req.IncludeTopicAuthorizedOperations = true
	resp, err := req.RequestWith(ctx, e.cl)
	if err == nil && len(resp.Topics) != 1 {
		err = kerr.UnknownTopicOrPartition
	}
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		e.add(check, broker.Bad, "%v", err)
		return
	}
	headless := 0
	for _, p := range resp.Topics[0].Partitions {
		if p.Leader < 0 {
			headless++
		}
	}
	switch {
	case !may(resp.Topics[0].AuthorizedOperations, op):
		e.add(check, broker.Bad, "no permission: %s", op)
	case headless > 0:
		e.add(check, broker.Warn, "%d of %d partitions have no leader", headless,
			len(resp.Topics[0].Partitions))
	default:
		e.add(check, broker.Good, "%d partitions", len(resp.Topics[0].Partitions))
	}
}

// may reads a set of permitted operations.
func may(set int32, op kmsg.ACLOperation) bool {
	return set == unknownOperation || set&(1<<uint(op)) != 0
}

// config warns of what makes a topic of requests lose some. Not being allowed to see it is no
// fault.
func (e *examination) config(ctx context.Context, s *Options) {
	all, err := e.adm.DescribeTopicConfigs(ctx, s.Topic)
	if err != nil {
		return
	}
	r, err := all.On(s.Topic, nil)
	if err != nil || r.Err != nil {
		return
	}
	check := "source " + s.Topic
	for _, c := range r.Configs {
		v := c.MaybeValue()
		switch c.Key {
		case "cleanup.policy":
			if strings.Contains(v, "compact") && !s.IDFromKey {
				e.add(check, broker.Warn, "cleanup.policy=%s: of requests with one key the older ones "+
					"are lost", v)
			}
		case "unclean.leader.election.enable":
			if v == "true" {
				e.add(check, broker.Warn, "unclean.leader.election.enable=true: acknowledged requests may "+
					"be lost, and others stored in their place")
			}
		case "retention.ms":
			ms, err := strconv.ParseInt(v, 10, 64)
			keeps := time.Duration(ms) * time.Millisecond
			if err == nil && ms >= 0 && keeps < shortRetention {
				e.add(check, broker.Warn, "retention.ms=%s: after an outage of more than %s requests are "+
					"missing", v, keeps)
			}
		}
	}
}

// group asks whether we may be a member, and how far the group is.
func (e *examination) group(ctx context.Context, s *Options) {
	check := "group " + s.Group
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{s.Group}
	req.IncludeAuthorizedOperations = true
	resp, err := req.RequestWith(ctx, e.cl)
	if err == nil && len(resp.Groups) == 1 {
		// A group that does not exist yet, or is of the newer kind, has no description.
		err = kerr.ErrorForCode(resp.Groups[0].ErrorCode)
		if errors.Is(err, kerr.GroupIDNotFound) {
			err = nil
		}
	}
	switch {
	case err != nil && kerr.IsRetriable(err):
		e.add(check, broker.Warn, "not ready: %v", err) // the first group of a new cluster
		return
	case err != nil:
		e.add(check, broker.Bad, "%v", err)
		return
	case len(resp.Groups) == 1 && resp.Groups[0].ErrorCode == 0 &&
		!may(resp.Groups[0].AuthorizedOperations, kmsg.ACLOperationRead):
		e.add(check, broker.Bad, "no permission: READ")
		return
	}
	var behind int64
	read := 0
	offsets, err := e.adm.FetchOffsets(ctx, s.Group)
	ends, endErr := e.adm.ListEndOffsets(ctx, s.Topic)
	if err == nil && endErr == nil {
		ends.Each(func(end kadm.ListedOffset) {
			if o, ok := offsets.Lookup(end.Topic, end.Partition); ok {
				read++
				behind += max(end.Offset-o.At, 0)
			}
		})
	}
	e.add(check, broker.Good, "%d partitions of %s read before, %d offsets behind", read, s.Topic,
		behind)
}
