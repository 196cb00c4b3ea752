// SPDX-License-Identifier: Apache-2.0

package query

import (
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/find"
)

// listOutcomes lists cancelled or delivered messages whose id is remembered, by id.
func (q *Reader) listOutcomes(f Filter, limit int, token string) ([]Info, string, error) {
	var out []Info
	next, kind := "", f.Kind
	f.Kind = AnyKind // the record of the id tells it, not what is left of the message
	err := q.store.ScanIDs(f.IDPrefix, func(id string, rec localstore.IDRecord) bool {
		if id < token || !kind.has(rec.Recurs, rec.Guarded) {
			return true
		}
		info := Info{
			ID: delay.ID(id), State: rec.State, Level: delay.Warm, Due: rec.Key.Due,
			Generation: rec.Generation, Attempts: rec.Attempts,
		}
		if !f.passes(&info) {
			return true
		}
		if len(out) == limit {
			next = id
			return false
		}
		out = append(out, info)
		return true
	})
	return out, next, err
}

// DeadLetters pages through dead and expired messages by due.
func (q *Reader) DeadLetters(
	f Filter, limit int, token string,
) ([]Info, string, error) {
	from, err := parseToken(token)
	if err != nil {
		return nil, "", err
	}
	var out []Info
	next := ""
	err = q.store.ScanDead(from, func(k delay.Key, p delay.Progress, rec []byte) bool {
		info, err := q.deadInfo(k, p, slices.Clone(rec), false)
		if err != nil || !f.passes(&info) {
			return true
		}
		if len(out) == limit {
			next = pageToken(k)
			return false
		}
		out = append(out, info)
		return true
	})
	return out, next, err
}

func (q *Reader) getFinished(loc find.Located, withBody bool) (Info, error) {
	if !loc.Known {
		return Info{}, fmt.Errorf("message %s: %w", loc.ID, delay.ErrNotFound)
	}
	if p, rec, err := q.store.Dead(loc.Rec.Key); err == nil {
		info, err := q.deadInfo(loc.Rec.Key, p, rec, withBody)
		info.ID = loc.ID
		return info, err
	}
	return Info{
		ID: loc.ID, State: loc.Rec.State, Level: delay.Warm, Due: loc.Rec.Key.Due,
		Generation: loc.Rec.Generation, Attempts: loc.Rec.Attempts,
	}, nil
}

// getCovered tells of a cold message that a bulk cancel covers.
func (q *Reader) getCovered(loc find.Located) (Info, error) {
	m, err := delay.DecodeRecord(loc.Record)
	if err != nil {
		return Info{}, fmt.Errorf("message %s: %w", loc.ID, err)
	}
	if !loc.Known {
		loc.Rec = localstore.IDRecord{Identity: delay.IdentityOf(loc.Key, &m)}
	}
	return Info{
		ID: loc.ID, State: delay.Cancelled, Level: delay.Cold, Due: loc.Key.Due,
		Generation: loc.Rec.Generation,
	}, nil
}

func (q *Reader) deadInfo(
	key delay.Key, p delay.Progress, rec []byte, withBody bool,
) (Info, error) {
	info, err := q.infoOf(key, rec, withBody)
	if err != nil {
		return Info{}, fmt.Errorf("dead letter %s: %w", key, err)
	}
	info.State, info.Level, info.Attempts = p.State, delay.Warm, p.Attempts
	info.Reason, info.LastError, info.DiedAt = p.Reason, p.LastError, p.DiedAt
	if p.State == delay.Expired {
		info.Reason = limitOf(rec)
	}
	return info, nil
}

// limitOf is the field that set the limit at which an expired message did: the earlier one.
func limitOf(rec []byte) string {
	m, err := delay.DecodeRecord(rec)
	if err == nil && m.NotAfter > 0 && m.Expires() == m.NotAfter {
		return "not_after"
	}
	return "ttl"
}
