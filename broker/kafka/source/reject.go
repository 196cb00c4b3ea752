// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker/intake"
	"github.com/cicadamq/cicada/delay"
)

// The headers of a rejected record, beside its own.
const (
	headerError  = intake.HeaderError
	headerSource = intake.HeaderSource
	// headerCut is the size of a value that the reject topic did not take. Such a record cannot be
	// sent again, and its header is not understood (I1).
	headerCut = "cicada-cut"
)

// Limits of rejected records.
const (
	maxRejectBytes = 16 << 20         // of a record and of a batch of them
	maxErrorBytes  = 1 << 10          // of cicada-error
	rejectTimeout  = 10 * time.Second // for one try
	rejectTries    = 3                // to find the topic
	rejectPatience = 30 * time.Second // for a topic that takes nothing; then the source goes on (B6)
	maxRejectChunk = 256 << 10        // bytes after which no more are produced at a time
)

// reject is a record that is not taken, and why.
type reject struct {
	record *kgo.Record
	err    error
}

// code is the label of metrics, as in the API.
func (r *reject) code() string {
	switch {
	case errors.Is(r.err, delay.ErrExists):
		return "already_exists"
	case errors.Is(r.err, delay.ErrUnimplemented):
		return "unimplemented"
	case errors.Is(r.err, delay.ErrInvalid):
		return "invalid_argument"
	}
	return "unknown"
}

// copyOut brings rejects to the reject topic, and reports false when the partition moved away
// before that was done. It returns true when there is no such topic, or it takes none of them for
// rejectPatience: a poison record never stops its partition (B6).
func (p *partition) copyOut(rejects []reject) bool {
	for i := range rejects {
		r := &rejects[i]
		p.n.counts.reject(r.code())
		p.n.grumble.Warn("a record is no request", zap.Int32("partition", p.number),
			zap.Int64("offset", r.record.Offset), zap.Error(r.err))
	}
	if p.n.opts.RejectTopic == "" {
		p.n.counts.uncopied.Add(int64(len(rejects)))
		return true
	}
	for len(rejects) > 0 {
		some, size := 0, int64(0)
		for some < len(rejects) && (some == 0 || size < maxRejectChunk) {
			size += fetchedSize(rejects[some].record)
			some++
		}
		if !p.copySome(rejects[:some]) {
			return false
		}
		rejects = rejects[some:]
	}
	return true
}

// copySome copies rejects at once. If that is too large for the topic they are copied one by one,
// and one that is still too large without its value. It reports false as copyOut does.
func (p *partition) copySome(rejects []reject) bool {
	patience, cancel := context.WithTimeout(p.ctx, rejectPatience)
	defer cancel()
	cut := false
	for wait := minRetry; ; wait = min(2*wait, maxRetry) {
		left, large := p.produce(patience, rejects, cut)
		switch {
		case len(large) == 0:
		case len(rejects) > 1:
			for i := range large {
				if !p.copySome(large[i : i+1]) {
					return false
				}
			}
		case cut:
			p.uncopied(large, kerr.MessageTooLarge)
		default:
			cut, left = true, large
		}
		if rejects = left; len(rejects) == 0 {
			return true
		}
		if patience.Err() != nil && p.ctx.Err() == nil {
			p.uncopied(rejects, patience.Err())
			return true
		}
		if !p.rest(wait) {
			return false
		}
	}
}

// produce tries once. It returns what is worth another try, and what is too large.
func (p *partition) produce(
	ctx context.Context, rejects []reject, cut bool,
) (left, large []reject) {
	which := make(map[*kgo.Record]reject, len(rejects))
	copies := make([]*kgo.Record, len(rejects))
	for i := range rejects {
		copies[i] = p.rejected(&rejects[i], cut)
		which[copies[i]] = rejects[i]
	}
	for _, r := range p.n.cl.ProduceSync(ctx, copies...) {
		switch err := r.Err; {
		case err == nil:
		case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
			large = append(large, which[r.Record])
		case kerr.IsRetriable(err), !isAnswer(err):
			left = append(left, which[r.Record])
			p.n.grumble.Warn("the reject topic takes nothing now",
				zap.String("reject_topic", p.n.opts.RejectTopic), zap.Error(err))
		default:
			p.uncopied([]reject{which[r.Record]}, err)
		}
	}
	return left, large
}

// isAnswer reports whether a broker said err, and not the way to it.
func isAnswer(err error) bool {
	var answer *kerr.Error
	return errors.As(err, &answer)
}

// uncopied counts records of which no copy is kept. They are still in the source's topic, for as
// long as its retention allows.
func (p *partition) uncopied(rejects []reject, err error) {
	p.n.counts.uncopied.Add(int64(len(rejects)))
	for i := range rejects {
		p.n.grumble.Error("the reject topic does not take a rejected record",
			zap.String("reject_topic", p.n.opts.RejectTopic), zap.Int32("partition", p.number),
			zap.Int64("offset", rejects[i].record.Offset), zap.Error(err))
	}
}

// rejected is the copy: the record as it was, with where it was and why it is here. Its timestamp
// is of now, from which retention and the limit of a try are counted. A cut one has an empty value,
// and of headers what a message may have.
func (p *partition) rejected(r *reject, cut bool) *kgo.Record {
	from := r.record
	c := &kgo.Record{
		Topic: p.n.opts.RejectTopic, Key: from.Key, Value: from.Value,
		Headers: make([]kgo.RecordHeader, 0, len(from.Headers)+3),
	}
	size := len(from.Key)
	for _, h := range from.Headers {
		size += len(h.Key) + len(h.Value)
		if cut && size > delay.MaxHeaderBytes {
			break
		}
		if h.Key != headerError && h.Key != headerSource && h.Key != headerCut {
			c.Headers = append(c.Headers, h)
		}
	}
	if cut {
		if len(c.Key) > delay.MaxHeaderBytes {
			c.Key = nil
		}
		c.Value = []byte{}
		c.Headers = append(c.Headers, kgo.RecordHeader{
			Key: headerCut, Value: strconv.AppendInt(nil, int64(len(from.Value)), 10),
		})
	}
	why := r.err.Error()
	c.Headers = append(c.Headers,
		kgo.RecordHeader{Key: headerError, Value: []byte(why[:min(len(why), maxErrorBytes)])},
		kgo.RecordHeader{Key: headerSource, Value: []byte(p.n.opts.Topic + "/" +
			strconv.FormatInt(int64(p.number), 10) + "/" + strconv.FormatInt(from.Offset, 10))})
	return c
}
