// SPDX-License-Identifier: Apache-2.0

// Package probe finds out whether a store keeps the promises that Cicada builds on. Several
// well-known servers accept conditional writes and ignore the condition, and two daemons on such a
// store would overwrite each other's manifests without a sign.
//
//	probe/<random>   the objects that it writes below the bucket's prefix, and deletes again
//
// # Invariants
//
//	V1  A promise counts as broken only on an answer that is certain. A store that does not answer
//	    is unavailable, not unfit.
//	V2  Only the probe's own objects are touched, so it may run beside a daemon at work.
//
// A probe is about 90 requests, and starts no goroutine that outlives it.
package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// ErrUnfit says that the store breaks a promise that Cicada needs, and which.
var ErrUnfit = errors.New("probe: the store is unfit")

const (
	prefix  = "probe/"
	writers = 16 // racing on one key
	rounds  = 2  // of each race
	tries   = 3  // of a step that got no certain answer
	patient = 10 * time.Second
	body    = "0123456789abcdef"
)

// Checker is implemented by buckets that can damage a body on the way.
type Checker interface {
	// PutCorrupt stores body under key with the checksum of another body: objstore.ErrRefused from
	// a store that compares.
	PutCorrupt(ctx context.Context, key string, body []byte) error
}

// Verdict is what the store was found to do.
type Verdict struct {
	Conditions bool // create if absent and replace if unchanged, one writer after the other
	Races      bool // of 16 racing writers exactly one wins
	Ranges     bool // ranges are exact, and refused beyond the end
	Lists      bool // a list shows what was just written, and not what was just deleted
	// Checksums: a body that does not fit its checksum is refused. Not needed: every object of
	// Cicada has its own checksum; without this, damage is found when it is read.
	Checksums bool
}

// Step is one promise that is tried.
type Step struct {
	Name   string // "conditions", "races", "ranges", "lists" or "checksums"
	Tried  string // what is done
	Kept   bool   // false also when the Probe ended before it
	Needed bool
}

// Steps are the verdict in the order in which it was found.
func (v Verdict) Steps() []Step {
	return []Step{
		{"conditions", "create and replace, the condition true and false", v.Conditions, true},
		{"races", fmt.Sprintf("%d writers at once, %d times each to create and to replace",
			writers, rounds), v.Races, true},
		{"ranges", "a part of an object, and one beyond its end", v.Ranges, true},
		{"lists", "a list after a write and after a delete", v.Lists, true},
		{"checksums", "a body that does not fit its checksum", v.Checksums, false},
	}
}

// Probe tries bucket out. The error wraps ErrUnfit when the store breaks a promise,
// delay.ErrUnavailable when it gave no certain answer, objstore.ErrRefused when it refused an
// ordinary call. The Verdict holds what was found until then.
func Probe(ctx context.Context, bucket objstore.Bucket) (Verdict, error) {
	p := &prober{bucket: bucket, key: prefix + strings.ToLower(rand.Text())}
	var v Verdict
	for _, step := range []struct {
		what string
		run  func(context.Context) error
		ok   *bool
	}{
		{"conditions", p.conditions, &v.Conditions},
		{"races", p.races, &v.Races},
		{"ranges", p.ranges, &v.Ranges},
		{"lists", p.lists, &v.Lists},
		{"checksums", p.checksums, &v.Checksums},
	} {
		err := p.repeat(ctx, step.run)
		*step.ok = err == nil
		if err != nil && !errors.Is(err, errOptional) {
			return v, fmt.Errorf("probe %s: %w", step.what, errors.Join(err, p.tidy(ctx)))
		}
	}
	return v, p.tidy(ctx)
}

// errOptional is a broken promise that can be lived with.
var errOptional = errors.New("probe: not kept, not needed")

type prober struct {
	bucket objstore.Bucket
	key    string
	n      int
	used   []string
}

// fresh is a key that was never used (V2).
func (p *prober) fresh() string {
	p.n++
	key := fmt.Sprintf("%s-%d", p.key, p.n)
	p.used = append(p.used, key)
	return key
}

// repeat runs step until its outcome is certain (V1).
func (p *prober) repeat(ctx context.Context, step func(context.Context) error) error {
	for n := 1; ; n++ {
		once, cancel := context.WithTimeout(ctx, patient)
		err := step(once)
		cancel()
		switch {
		case err == nil, errors.Is(err, ErrUnfit), errors.Is(err, errOptional),
			errors.Is(err, objstore.ErrRefused):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case n == tries:
			return fmt.Errorf("%w after %d attempts: %w", delay.ErrUnavailable, n, err)
		}
	}
}

// tidy deletes what the probe wrote.
func (p *prober) tidy(ctx context.Context) error {
	if len(p.used) == 0 {
		return nil
	}
	err := p.repeat(ctx, func(ctx context.Context) error {
		return p.bucket.Delete(ctx, p.used...)
	})
	if err != nil {
		return fmt.Errorf("probe: delete its objects: %w", err)
	}
	return nil
}

func unfit(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnfit, fmt.Sprintf(format, args...))
}

// conditions writes under every condition, one after the other.
func (p *prober) conditions(ctx context.Context) error {
	key := p.fresh()
	absent := objstore.Condition{Absent: true}
	if _, err := p.bucket.Put(ctx, key, []byte("one"), absent); err != nil {
		return err
	}
	if err := p.mustFail(ctx, key, absent, "a create overwrote an object"); err != nil {
		return err
	}
	_, info, err := p.bucket.Get(ctx, key)
	if err != nil {
		return err
	}
	tag, err := p.bucket.Put(ctx, key, []byte("two"), objstore.Condition{ETag: info.ETag})
	switch {
	case errors.Is(err, objstore.ErrPrecondition):
		return unfit("a replace with the current tag was refused")
	case err != nil:
		return err
	case tag == info.ETag:
		return unfit("two contents have one tag")
	}
	stale := objstore.Condition{ETag: info.ETag}
	if err := p.mustFail(ctx, key, stale, "a replace with an old tag was done"); err != nil {
		return err
	}
	err = p.mustFail(ctx, p.fresh(), stale, "a replace made an object that was missing")
	if err != nil {
		return err
	}
	switch got, _, err := p.bucket.Get(ctx, key); {
	case err != nil:
		return err
	case string(got) != "two":
		return unfit("a refused write changed the object")
	}
	return nil
}

// mustFail is nil when a Put under cond fails as it must.
func (p *prober) mustFail(
	ctx context.Context, key string, cond objstore.Condition, broken string,
) error {
	_, err := p.bucket.Put(ctx, key, []byte("no"), cond)
	switch {
	case errors.Is(err, objstore.ErrPrecondition):
		return nil
	case err == nil:
		return unfit("%s: conditional writes are ignored", broken)
	default:
		return err
	}
}

// races lets writers create one key, then replace it, at once.
func (p *prober) races(ctx context.Context) error {
	for range rounds {
		key := p.fresh()
		tag, err := p.race(ctx, key, objstore.Condition{Absent: true})
		if err != nil {
			return err
		}
		if _, err := p.race(ctx, key, objstore.Condition{ETag: tag}); err != nil {
			return err
		}
	}
	return nil
}

func (p *prober) race(
	ctx context.Context, key string, cond objstore.Condition,
) (winner string, err error) {
	var wg sync.WaitGroup
	tags, errs := make([]string, writers), make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			text := fmt.Appendf(nil, "%s writer %02d of %+v", key, w, cond)
			tags[w], errs[w] = p.bucket.Put(ctx, key, text, cond)
		})
	}
	wg.Wait()
	won := 0
	var unsure error
	for w, err := range errs {
		switch {
		case err == nil:
			won++
			winner = tags[w]
		case !errors.Is(err, objstore.ErrPrecondition) && !errors.Is(err, objstore.ErrThrottled):
			unsure = err
		}
	}
	switch {
	case won > 1:
		return "", unfit("%d of %d writers at the same moment won", won, writers)
	case unsure != nil:
		return "", unsure
	case won == 0:
		return "", errors.New("no writer won") // all may have met in a conflict
	}
	_, info, err := p.bucket.Get(ctx, key)
	if err == nil && info.ETag != winner {
		return "", unfit("a writer that lost is what a read finds")
	}
	return winner, err
}

func (p *prober) ranges(ctx context.Context) error {
	key := p.fresh()
	if _, err := p.bucket.Put(ctx, key, []byte(body), objstore.Condition{}); err != nil {
		return err
	}
	got, err := p.bucket.GetRange(ctx, key, 3, 7)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, []byte(body)[3:10]) {
		return unfit("a range is not what was asked for")
	}
	switch _, err := p.bucket.GetRange(ctx, key, 10, int64(len(body))); {
	case errors.Is(err, objstore.ErrRefused):
		return nil
	case err == nil:
		return unfit("a range beyond the end was answered")
	default:
		return err
	}
}

func (p *prober) lists(ctx context.Context) error {
	key := p.fresh()
	if _, err := p.bucket.Put(ctx, key, []byte(body), objstore.Condition{}); err != nil {
		return err
	}
	for _, there := range []bool{true, false} {
		found := false
		err := p.bucket.List(ctx, key, func(i objstore.Info) bool {
			found = found || i.Key == key
			return true
		})
		if err != nil {
			return err
		}
		if found != there {
			return unfit("a list does not show what was just written or deleted")
		}
		if err := p.bucket.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

func (p *prober) checksums(ctx context.Context) error {
	c, ok := p.bucket.(Checker)
	if !ok {
		return errOptional
	}
	switch err := c.PutCorrupt(ctx, p.fresh(), []byte(body)); {
	case errors.Is(err, objstore.ErrRefused):
		return nil
	case err == nil:
		return errOptional
	default:
		return err
	}
}
