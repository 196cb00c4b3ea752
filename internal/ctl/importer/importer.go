// SPDX-License-Identifier: Apache-2.0

// Package importer re-accepts what a local store that was set aside holds and no bucket does: the
// rows that were never uploaded (rule R10). It reads the store without changing it and hands each
// message to a running daemon as a new request, so everything a request promises holds for it.
package importer

import (
	"encoding/base64"
	"fmt"
	"unicode/utf8"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// Each calls fn for every pending message of s that was never uploaded, in the order of due for
// each of rows and parked rows, until it returns an error. The message's bytes are valid during the
// call.
func Each(s *localstore.Store, fn func(delay.Message) error) error {
	meta := s.Meta()
	var failed error
	visit := func(k delay.Key, rec []byte) bool {
		m, err := delay.DecodeRecord(rec)
		switch {
		case err != nil:
			failed = fmt.Errorf("row %s: %w", k, err)
		case m.Cold && k.Seq <= meta.Uploaded:
			return true // the bucket has it
		default:
			failed = fn(m)
		}
		return failed == nil
	}
	err := s.ScanRows(delay.Key{}, delay.MaxKey, visit)
	if err != nil || failed != nil {
		return firstOf(failed, err)
	}
	var lanes []uint64
	err = s.ParkedLanes(func(lane uint64, _ delay.Target, _ int64) bool {
		lanes = append(lanes, lane)
		return true
	})
	for _, lane := range lanes {
		if err != nil || failed != nil {
			break
		}
		err = s.ScanParked(lane, delay.Key{}, func(k delay.Key, _ bool, rec []byte) bool {
			return visit(k, rec)
		})
	}
	return firstOf(failed, err)
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// Request is the API's form of m. The id is kept if the client chose it, so that a message which
// did reach the bucket or another owner is recognised; the daemon makes a new one otherwise.
func Request(m *delay.Message) map[string]any {
	r := map[string]any{"target": string(m.Target), "deliver_at": int64(m.Due)}
	if m.ID != "" && !delay.LooksServerMade(m.ID) {
		r["id"] = string(m.ID)
	}
	if utf8.Valid(m.Body) {
		r["body"] = string(m.Body)
	} else {
		r["body_base64"] = base64.StdEncoding.EncodeToString(m.Body)
	}
	if m.RoutingKey != "" {
		r["key"] = m.RoutingKey
	}
	if len(m.Headers) > 0 {
		headers := make(map[string]string, len(m.Headers))
		for _, h := range m.Headers {
			headers[h.Name] = h.Value
		}
		r["headers"] = headers
	}
	if m.TTL > 0 {
		r["ttl"] = m.TTL.String()
	}
	if m.NotAfter > 0 {
		r["not_after"] = int64(m.NotAfter)
	}
	if m.MaxAttempts > 0 {
		r["max_attempts"] = m.MaxAttempts
	}
	if m.Backoff > 0 {
		r["backoff"] = m.Backoff.String()
	}
	if m.Mode == delay.AtMostOnce {
		r["mode"] = m.Mode.String()
	}
	if m.Durability == delay.Tier {
		r["durability"] = m.Durability.String()
	}
	return r
}
