// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/filesystem"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

const (
	// tierReply is a daemon's tier in good health, on S3.
	tierReply = `{"bucket":"s3://cold/cicada","same_disk":false,"cluster":"c1","shard":0,"epoch":3,` +
		`"manifest":{"version":1812,"written_at":"2027-01-15T07:59:56.000Z","written_at_ms":1799999996000,"bytes":3100,"not_uploaded":12},` +
		`"probe":{"at":"2027-01-15T06:00:00.000Z","steps":[` +
		`{"name":"conditions","tried":"create and replace","kept":true,"needed":true},` +
		`{"name":"checksums","tried":"a wrong one","kept":false,"needed":false}]},` +
		`"levels":[{"kind":"segment","level":0,"objects":12,"items":60000,"bytes":12000000,"stored_bytes":4000000,` +
		`"first_due":"2027-01-15T08:01:00.000Z","last_due":"2027-02-15T08:01:00.000Z","oldest":"2027-01-15T07:58:00.000Z","newest":"x"},` +
		`{"kind":"segment","level":1,"objects":1,"items":9000000,"bytes":1800000000,"stored_bytes":600000000,` +
		`"first_due":"2027-01-16T00:00:00.000Z","last_due":"2027-01-16T23:59:00.000Z","oldest":"2027-01-01T00:00:00.000Z","newest":"x"},` +
		`{"kind":"marks","level":0,"objects":1,"items":1,"bytes":0,"stored_bytes":60,"first_due":"","last_due":"","oldest":"2027-01-15T07:58:00.000Z","newest":"x"}],` +
		`"pending_deletes":{"objects":17,"next":"2027-01-16T07:00:00.000Z"},"oldest_not_uploaded_seconds":4.2,` +
		`"last_flush":"2027-01-15T07:59:56.000Z","last_flush_error":"",` +
		`"classes":[{"class":"read","paused":false,"since":"","limit":64,"under_way":0,"waiting":0,"retries_left":20},` +
		`{"class":"background","paused":false,"since":"","limit":1,"under_way":1,"waiting":3,"retries_left":0}],` +
		`"requests":{"since":"2027-01-15T06:00:00.000Z","seconds":7200,"accepted":3600000,"counts":[` +
		`{"op":"get_range","code":"ok","count":720},{"op":"list","code":"ok","count":1},{"op":"put","code":"ok","count":720},` +
		`{"op":"put","code":"throttled","count":3},{"op":"put_if","code":"ok","count":720}],"bytes_in":1,"bytes_out":2,"commits":720},` +
		`"store_clock":{"system_ahead_ms":420,"at":"2027-01-15T07:59:56.000Z"}}`
	// sickTier is one that has much to complain about.
	sickTier = `{"bucket":"file:///d/bucket","same_disk":true,"cluster":"c1","shard":0,"epoch":3,` +
		`"manifest":{"version":7,"written_at":"2027-01-15T07:00:00.000Z","written_at_ms":1799996400000,"bytes":300,"not_uploaded":12000},` +
		`"levels":[],"pending_deletes":{"objects":0,"next":""},"oldest_not_uploaded_seconds":3600,` +
		`"last_flush":"","last_flush_error":"no route",` +
		`"classes":[{"class":"write","paused":true,"since":"2027-01-15T07:01:00.000Z","limit":16,"under_way":0,"waiting":0,"retries_left":0}],` +
		`"requests":{"since":"2027-01-15T07:59:00.000Z","seconds":60,"accepted":0,"counts":[],"bytes_in":0,"bytes_out":0,"commits":0},` +
		`"store_clock":{"system_ahead_ms":-700000,"at":"x"}}`
)

// What an operator reads of the cold tier, and what scripts take from it: figures and bill must
// follow from the counts, with their prices and assumptions beside them.
func TestTierStatus(t *testing.T) {
	healthy := canned{"GET /v1/tier": tierReply}
	w := newWorld(t, healthy)
	w.do("", "tier status")
	w.do("", "tier status --price-storage 0.015 --price-put 4.5 --price-get 0")
	w.do("", "tier status --json")
	w.do("", "tier status --price-get -1")
	healthy["GET /v1/tier"] = sickTier
	w.terminal = true
	w.do("", "tier status")
	healthy["GET /v1/tier"] = `404 {"code":"not_found","message":"there is no bucket"}`
	w.do("", "tier status")
	w.golden("tier_status.txt")
}

// The doctor must see a bucket that does not answer, a clock that is off, a bucket on the wrong
// disk, and a cluster without one.
func TestDoctorOfTheTier(t *testing.T) {
	answers := canned{"GET /v1/status": statusReply, "GET /readyz": "{}",
		"GET /v1/targets": `{"targets":[]}`, "GET /v1/tier": tierReply}
	w := newWorld(t, answers)
	require.Equal(t, exitOK, w.do("", "doctor"))
	answers["GET /v1/tier"] = sickTier
	require.Equal(t, exitError, w.do("", "doctor"))
	answers["GET /v1/tier"] = `404 {"code":"not_found","message":"there is no bucket"}`
	require.Equal(t, exitOK, w.do("", "doctor"))
	answers["GET /v1/tier"] = tierReply

	inner := memory.New(memory.Options{Now: w.parts.Now})
	var bucket objstore.Bucket = keep{inner}
	w.parts.Bucket = func(context.Context, string) (objstore.Bucket, error) { return bucket, nil }
	require.Equal(t, exitOK, w.do("", "doctor --bucket s3://cold"))
	bucket = keep{faulty.New(inner, rand.New(rand.NewPCG(1, 1)), faulty.Options{
		Before: func(_ context.Context, c faulty.Call) error {
			return fmt.Errorf("%w: %s", objstore.ErrRefused, "AccessDenied")
		}})}
	require.Equal(t, exitError, w.do("", "doctor --bucket s3://cold"))
	bucket = careless{keep{inner}}
	require.Equal(t, exitError, w.do("", "doctor --bucket s3://cold"))
	text := probeName.ReplaceAllString(w.out.String(), "probe/RANDOM")
	w.out.Reset()
	w.out.WriteString(text)
	w.golden("doctor_tier.txt")
}

// careless ignores conditions, as some stores do.
type careless struct{ keep }

func (c careless) Put(
	ctx context.Context, key string, body []byte, _ objstore.Condition,
) (string, error) {
	return c.keep.Put(ctx, key, body, objstore.Condition{})
}

var probeName = regexp.MustCompile(`probe/[0-9a-z]{26}`)

var objectName = regexp.MustCompile(`[0-9]{7}-[0-9a-z]{26}`)

// tierWorld is a world whose bucket holds every kind of object: two levels, kept messages, marks,
// a bulk cancel, pending deletes and an orphan.
func tierWorld(t *testing.T, bucket objstore.Bucket) *world {
	w := newWorld(t, canned{})
	w.parts.Bucket = func(context.Context, string) (objstore.Bucket, error) {
		return keep{bucket}, nil
	}
	now := w.parts.Now().Add(-3 * time.Hour)
	tier, err := tiered.Open(t.Context(), bucket, tiered.Options{ClusterID: "c1",
		Now: func() time.Time { return now }, Rand: rand.New(rand.NewPCG(1, 1))})
	require.NoError(t, err)
	_, err = tier.Take(t.Context(), [16]byte{1}, true)
	require.NoError(t, err)
	cut := tiered.Cut{NotUploaded: 4}
	commit := func(rows ...tiered.Row) {
		cut.Rows = rows
		_, err := tier.Commit(t.Context(), cut)
		require.NoError(t, err)
		cut.Kept, cut.Marks = nil, nil
	}
	commit(tierRow(1, 0), tierRow(2, 0), tierRow(3, 26))
	commit(tierRow(4, 1), tierRow(5, 50))
	commit(tierRow(6, 2))
	now = now.Add(time.Hour)
	upkeep := tiered.Upkeep{Now: func() delay.Due { return delay.InstantOf(now) },
		DedupeWindow: time.Hour, Limits: tiered.CompactLimits{Objects: 2}}
	done, err := tier.Compact(t.Context(), upkeep)
	require.NoError(t, err)
	require.Equal(t, 3, done.Inputs)
	dead := tierRow(1, 0)
	cut.Kept = []delay.Kept{{Key: dead.Key, Record: dead.Record, Progress: delay.Progress{
		State: delay.Dead, Attempts: 3, Reason: "rejected", LastError: "404"}}}
	late := tierRow(2, 0)
	cut.Kept = append(cut.Kept, delay.Kept{Key: late.Key, Record: late.Record,
		Progress: delay.Progress{State: delay.Claimed, Attempts: 1}})
	cut.Marks = []delay.Mark{{State: delay.Expired, At: 1, ID: "alone"},
		{Key: tierRow(4, 1).Key, State: delay.Cancelled, At: 1_799_999_000_000, ID: "m4"}}
	cut.Watermark = delay.Key{Due: late.Key.Due + 1}
	cut.Predicates = []delay.Predicate{{Seq: delay.MakeSeq(1, 7), Target: "pull:purged",
		At: 1_799_999_500_000}}
	now = now.Add(time.Hour)
	commit(tierRow(8, 3), tierRow(9, 4))
	_, err = bucket.Put(t.Context(), tier.Prefix()+strings.Replace(
		tier.State().Segments[0].Name, "0000001-", "0000000-", 1), []byte("x"), objstore.Condition{})
	require.NoError(t, err)
	require.NoError(t, tier.Close())
	return w
}

// tierRow is message n, due in so many hours; the sixth is bulk cancelled.
func tierRow(n uint64, hours int) tiered.Row {
	m := delay.Message{ID: delay.ID(fmt.Sprint("m", n)), Target: "pull:q", Generation: 1,
		AcceptedAt: 1_799_900_000_000, Cold: true,
		Due:  delay.Due(1_800_000_000_000).Add(time.Duration(hours) * time.Hour),
		Body: fmt.Appendf(nil, `{"order":%d}`, n)}
	switch n {
	case 3:
		m.ID, m.Headers, m.RoutingKey = "", []delay.Header{{Name: "a", Value: "b"}}, "k"
	case 5:
		m.Body = []byte{0xff}
	case 6:
		m.Target = "pull:purged"
	}
	return tiered.Row{Key: delay.Key{Due: m.Due, Seq: delay.MakeSeq(1, n)},
		Record: delay.AppendRecord(nil, &m)}
}

// Every table and JSON of the offline commands, over every kind of object. What is finished must be
// left out of a dump and of a restore, and shown where the objects are named.
func TestTierCommands(t *testing.T) {
	parts := newWorld(t, canned{}).parts
	bucket := memory.New(memory.Options{Now: parts.Now})
	w := tierWorld(t, bucket)
	w.do("", "tier ls")
	w.do("", "tier ls --marked -o jsonl")
	w.do("", "tier ls --days")
	w.do("", "tier ls --orphans")
	w.do("", "tier ls --days --orphans")
	w.do("", "tier verify")
	w.do("", "tier verify --json")
	w.do("", "tier dump")
	w.do("", "tier dump --body -o jsonl")
	w.do("", "tier dump --key 1800000000000/1.1 -o jsonl")
	w.do("", "tier dump --key 1800000000000")
	w.do("", "tier dump nothing")
	for _, folder := range []string{"l1/", "kept/", "marks/"} {
		w.do("", "tier dump -o jsonl "+nameIn(t, bucket, folder))
	}
	w.do("", "tier restore")
	w.do("", "tier restore --dry-run")
	w.do("", "tier restore --dry-run --rough --json")
	w.terminal = true
	w.do("", "tier ls --marked")
	w.do("", "tier dump")

	// One object is damaged, and one is gone.
	key := nameIn(t, bucket, "l1/")
	body, _, err := bucket.Get(t.Context(), key)
	require.NoError(t, err)
	body[len(body)/2] ^= 1
	_, err = bucket.Put(t.Context(), key, body, objstore.Condition{})
	require.NoError(t, err)
	require.NoError(t, bucket.Delete(t.Context(), nameIn(t, bucket, "kept/")))
	w.terminal = false
	require.Equal(t, exitError, w.do("", "tier verify"))
	require.Equal(t, exitError, w.do("", "tier verify --json"))
	require.Equal(t, exitError, w.do("", "tier ls --orphans"))

	names := map[string]string{}
	text := objectName.ReplaceAllStringFunc(w.out.String(), func(name string) string {
		if names[name] == "" {
			names[name] = fmt.Sprint("OBJECT-", len(names)+1)
		}
		return names[name]
	})
	w.out.Reset()
	w.out.WriteString(text)
	w.golden("tier.txt")
}

// nameIn is the key of the last object in a folder.
func nameIn(t *testing.T, b objstore.Bucket, folder string) (key string) {
	require.NoError(t, b.List(t.Context(), "", func(i objstore.Info) bool {
		if strings.Contains(i.Key, "/"+folder+"0000001-") {
			key = i.Key
		}
		return true
	}))
	require.NotEmpty(t, key)
	return key
}

// The same must work on files, beside an owner that goes on committing.
func TestTierOnFiles(t *testing.T) {
	bucket, err := filesystem.Open(t.TempDir())
	require.NoError(t, err)
	w := tierWorld(t, bucket)
	for _, line := range []string{"ls", "ls --marked", "ls --days", "ls --orphans", "verify", "dump",
		"restore --dry-run", "restore --dry-run --rough"} {
		require.Equal(t, exitOK, w.do("", "tier "+line), line)
	}
	owner, err := tiered.Open(t.Context(), bucket, tiered.Options{Now: w.parts.Now})
	require.NoError(t, err)
	_, err = owner.Take(t.Context(), [16]byte{2}, false)
	require.NoError(t, err)
	require.Equal(t, exitOK, w.do("", "tier verify"))
	require.NoError(t, owner.Check(t.Context()), "a look must not take the shard")
	require.NoError(t, owner.Close())
}

// A bucket that does not answer is an error and no empty list.
func TestTierWithoutAnswer(t *testing.T) {
	inner := memory.New(memory.Options{})
	w := tierWorld(t, inner)
	down := faulty.New(inner, rand.New(rand.NewPCG(1, 1)), faulty.Options{
		Before: func(_ context.Context, c faulty.Call) error {
			if c.Op == "get_range" || c.Op == "list" {
				return fmt.Errorf("%w: %w", objstore.ErrRefused, errors.New("no route"))
			}
			return nil
		}})
	w.parts.Bucket = func(context.Context, string) (objstore.Bucket, error) { return keep{down}, nil }
	for _, line := range []string{"ls --days", "ls --orphans", "dump", "dump --key 1800000000000/1.1",
		"restore --dry-run"} {
		require.NotEqual(t, exitOK, w.do("", "tier "+line), line)
	}
}
