// SPDX-License-Identifier: Apache-2.0

package query

import (
	"encoding/base64"
	"strings"

	"github.com/cicadamq/cicada/delay"
)

// Info is what is known of one message.
type Info struct {
	ID         delay.ID
	State      delay.State
	Level      delay.Level
	Due        delay.Due
	Attempts   uint32
	Target     delay.Target
	RoutingKey string
	Headers    []delay.Header
	Size       int // bytes of the body
	Generation uint32
	Body       []byte // only when asked for
	Reason     string // of a dead or expired message
	LastError  string
	DiedAt     delay.Due // when it became dead or expired
	// Recurrence is of a schedule, whose Target is that of its firings; else nil.
	Recurrence *delay.Recurrence
	// Guard is of a guarded message; else nil.
	Guard *delay.Guard
	// Known is false for a finished server-made id of which only the id is left.
	Known bool
}

// Kind tells schedules from messages.
type Kind uint8

// The kinds. A scan without one finds both, a count only messages, like the books.
const (
	AnyKind Kind = iota
	Messages
	Schedules
	Guarded // the messages that another broker is to deliver
	Own     // the messages that are ours to deliver; the API has no word for it
)

// ParseKind reads the word of the API.
func ParseKind(s string) (Kind, bool) {
	switch s {
	case "message":
		return Messages, true
	case "schedule":
		return Schedules, true
	case "guarded":
		return Guarded, true
	}
	return 0, false
}

// has reports whether what recurs or is guarded, or not, is of the kind.
func (k Kind) has(recurs, guarded bool) bool {
	switch k {
	case AnyKind:
		return true
	case Guarded:
		return guarded
	case Own:
		return !recurs && !guarded
	default:
		return recurs == (k == Schedules)
	}
}

// Filter selects messages. The zero value selects all that are pending.
type Filter struct {
	Target   delay.Target
	State    *delay.State // nil is any
	Level    *delay.Level // nil is any
	DueFrom  delay.Due    // inclusive; 0 is no bound
	DueTo    delay.Due    // exclusive; 0 is no bound
	IDPrefix string
	Kind     Kind
	// Only leaves out what goes elsewhere, and what is finished so that its target is not known any
	// more. nil is every target.
	Only *delay.TargetSet
}

// Bar is one bar of the histogram of the future.
type Bar struct {
	From            delay.Due
	Count, Bytes    int64
	Hot, Warm, Cold int64
	// Recurring are those of Count that do not exist yet: firings to come after the next one.
	Recurring int64
}

// matches reports whether a message passes the filter, but for State and Level.
func (f *Filter) matches(info *Info) bool {
	return f.Kind.has(info.Recurrence != nil, info.Guard != nil) &&
		(f.Target == "" || info.Target == f.Target) && f.Only.Has(info.Target) &&
		info.Due >= f.DueFrom &&
		(f.DueTo == 0 || info.Due < f.DueTo) && strings.HasPrefix(string(info.ID), f.IDPrefix)
}

func (f *Filter) passes(info *Info) bool {
	return f.matches(info) && (f.State == nil || *f.State == info.State) &&
		(f.Level == nil || *f.Level == info.Level)
}

// wantsPending reports whether pending messages can match.
func (f *Filter) wantsPending() bool { return f.State == nil || !f.State.Finished() }

// pageToken names where the next page begins.
func pageToken(k delay.Key) string {
	return base64.RawURLEncoding.EncodeToString(delay.AppendKey(nil, k))
}

func parseToken(token string) (delay.Key, error) {
	if token == "" {
		return delay.Key{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) != delay.KeySize {
		return delay.Key{}, delay.Invalid("page_token", "not a token of this server")
	}
	k, ok := delay.DecodeKey(b)
	if !ok {
		return delay.Key{}, delay.Invalid("page_token", "not a token of this server")
	}
	return k, nil
}
