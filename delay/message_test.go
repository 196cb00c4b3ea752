// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Rounding must go up for dues and down for now, or a message could be early by a millisecond.
func TestDueRounding(t *testing.T) {
	at := time.UnixMilli(1_800_000_000_000)
	require.Equal(t, Due(1_800_000_000_000), DueOf(at))
	require.Equal(t, Due(1_800_000_000_001), DueOf(at.Add(1)))
	require.Equal(t, Due(1_800_000_000_000), InstantOf(at.Add(999_999)))
	require.Equal(t, "2027-01-15T08:00:00.000Z", DueOf(at).String())
	require.Equal(t, "9999-12-31T23:59:59.999Z", MaxDue.String())
}

// Sums and differences of instants must stay in range, whatever a client sends.
func TestDueArithmetic(t *testing.T) {
	require.Equal(t, Due(1001), Due(1000).Add(1), "a fraction rounds up")
	require.Equal(t, Due(999), Due(1000).Add(-time.Millisecond))
	require.Equal(t, Due(0), Due(1000).Add(-time.Hour))
	require.Equal(t, MaxDue, MaxDue.Add(time.Hour))
	require.Equal(t, MaxDue, (MaxDue - 5).Add(math.MaxInt64))
	require.Equal(t, -time.Second, Due(0).Sub(1000))
	require.Equal(t, time.Duration(math.MaxInt64), MaxDue.Sub(0))
	require.Equal(t, time.Duration(math.MinInt64), Due(0).Sub(MaxDue))
}

// A seq must keep its epoch and counter apart (rule R4), and refuse what does not fit: keys of two
// owners must never be equal (D1).
func TestSeq(t *testing.T) {
	s := MakeSeq(MaxEpoch, MaxCounter)
	require.Equal(t, MaxEpoch, s.Epoch())
	require.Equal(t, MaxCounter, s.Counter())
	require.Less(t, MakeSeq(1, MaxCounter), MakeSeq(2, 0), "a new epoch sorts after the old one")
	require.Panics(t, func() { MakeSeq(MaxEpoch+1, 0) })
	require.Panics(t, func() { MakeSeq(0, MaxCounter+1) })
}

// The next key must leave no room between: ranges are half open.
func TestKeyNext(t *testing.T) {
	require.Equal(t, Key{5, 8}, Key{5, 7}.Next())
	require.Equal(t, Key{6, 0}, Key{5, math.MaxUint64}.Next())
	require.True(t, Key{5, 7}.Less(MaxKey))
	require.True(t, Key{}.IsZero())
	require.Equal(t, "5/1.7", Key{5, MakeSeq(1, 7)}.String())
}

// The earlier of ttl and not_after counts.
func TestExpires(t *testing.T) {
	require.Zero(t, (&Message{Due: 1000}).Expires())
	require.Equal(t, Due(3000), (&Message{Due: 1000, TTL: 2 * time.Second}).Expires())
	require.Equal(t, Due(2000), (&Message{Due: 1000, TTL: 2 * time.Second, NotAfter: 2000}).Expires())
	require.Equal(t, Due(3000), (&Message{Due: 1000, TTL: 2 * time.Second, NotAfter: 4000}).Expires())
}

// The kind of a target decides which sink gets it.
func TestTarget(t *testing.T) {
	for target, want := range map[Target]struct {
		kind, queue string
		pull        bool
	}{
		"pull:orders":     {"pull", "orders", true},
		"https://x.y/z":   {"https", "", false},
		"log:":            {"log", "", false},
		"kafka:main/t":    {"kafka", "", false},
		"nothing":         {"", "", false},
		"pulls:not-a-one": {"pulls", "", false},
	} {
		require.Equal(t, want.kind, target.Kind(), target)
		require.Equal(t, want.queue, target.Queue(), target)
		require.Equal(t, want.pull, target.IsPull(), target)
	}
	require.NotEqual(t, Target("pull:a").Hash(), Target("pull:b").Hash())
}

// Two requests are the same when content and due, or content and delay, are the same (S4).
func TestSameContent(t *testing.T) {
	base := Message{
		Target: "pull:q", Due: 5000, AcceptedAt: 1000, RoutingKey: "k", Body: []byte("0123456789"),
		Headers: []Header{{"a", "b"}},
	}
	key := Key{5000, 1}
	same := func(change func(*Message)) bool {
		m := base
		m.Headers = []Header{{"a", "b"}}
		change(&m)
		return IdentityOf(key, &base).SameContent(IdentityOf(key, &m))
	}
	require.True(t, same(func(*Message) {}))
	require.True(t, same(func(m *Message) { m.AcceptedAt = 2000 }), "the same instant, asked later")
	require.True(t, same(func(m *Message) { m.Generation, m.ID = 9, "other" }))
	require.True(t, same(func(m *Message) { m.Given, m.Due = 5000, 5007 }), "another point of the spread")
	for name, change := range map[string]func(*Message){
		"due":      func(m *Message) { m.Due = 5001 },
		"target":   func(m *Message) { m.Target = "pull:r" },
		"key":      func(m *Message) { m.RoutingKey = "" },
		"body":     func(m *Message) { m.Body = []byte("0123456788") },
		"long":     func(m *Message) { m.Body = []byte("1123456789") },
		"header":   func(m *Message) { m.Headers[0].Value = "c" },
		"shifted":  func(m *Message) { m.Headers[0] = Header{"ab", ""} },
		"ttl":      func(m *Message) { m.TTL = 1 },
		"spread":   func(m *Message) { m.Spread = time.Second },
		"mode":     func(m *Message) { m.Mode = AtMostOnce },
		"class":    func(m *Message) { m.Durability = Tier },
		"max wait": func(m *Message) { m.MaxWait = 1 },
	} {
		require.False(t, same(change), name)
	}
	byDelay := base
	byDelay.ByDelay = true
	later := byDelay
	later.AcceptedAt, later.Due = 2000, 6000
	first, second := IdentityOf(key, &byDelay), IdentityOf(key, &later)
	require.True(t, first.SameContent(second), "the same delay, asked later")
	require.Equal(t, 4*time.Second, second.Delay())
	require.False(t, IdentityOf(key, &base).SameContent(second))

	longer, other := later, base
	longer.Due, other.RoutingKey = 6001, ""
	require.Equal(t, "its delay is 4s, not 4.001s", first.Differs(IdentityOf(key, &longer)))
	require.Equal(t, "it is due at 1970-01-01T00:00:05.000Z, not at 1970-01-01T00:00:06.000Z",
		IdentityOf(key, &base).Differs(second))
	require.Contains(t, first.Differs(IdentityOf(key, &other)), "headers, body")
}

// A spread must reach both ends, stay inside, and give one id one point.
func TestSpread(t *testing.T) {
	seen := map[time.Duration]int{}
	for salt := range uint64(2000) {
		d := SpreadOf("order", salt, 9*time.Millisecond)
		require.Equal(t, d, SpreadOf("order", salt, 9*time.Millisecond))
		seen[d]++
	}
	require.Len(t, seen, 10)
	for d, n := range seen {
		require.InDelta(t, 200, n, 70, "%s", d)
		require.LessOrEqual(t, d, 9*time.Millisecond)
	}
	require.Zero(t, SpreadOf("order", 1, 0))
}

// Ids and keys must be text: control characters break logs, headers and terminals.
func TestValidText(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "order-1": true, "größe": true, "a\x00": false, "a\n": false, "a\x7f": false,
		"\u0085": false, "\xff": false, "日本": true,
	} {
		require.Equal(t, want, ValidText(s), "%q", s)
	}
}

// A client must learn which field was wrong, and programs that it was the request.
func TestInvalid(t *testing.T) {
	err := Invalid("deliver_at", "%d is below %d", 1, 2)
	require.ErrorIs(t, err, ErrInvalid)
	require.EqualError(t, err, "deliver_at: 1 is below 2")
	var field *FieldError
	require.True(t, errors.As(err, &field))
	require.Equal(t, "deliver_at", field.Field)
}

// The due of a server-made id is that of the message (D2): it is read from the id when the row is
// gone.
func TestIDHoldsDue(t *testing.T) {
	maker := NewIDMaker("c")
	_, _, key := maker.Parse(maker.Make(3, Key{Due: 1_800_000_000_000, Seq: MakeSeq(1, 1)}))
	require.Equal(t, Due(1_800_000_000_000), key.Due)
}

// The words of the API.
func TestWords(t *testing.T) {
	require.Equal(t, "local tier", Local.String()+" "+Tier.String())
	require.Equal(t, "at_least_once at_most_once exactly_once", strings.Join([]string{
		AtLeastOnce.String(), AtMostOnce.String(), ExactlyOnce.String(),
	}, " "))
}
