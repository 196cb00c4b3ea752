// SPDX-License-Identifier: Apache-2.0

package recovery

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/tiered"
)

const (
	// isolatedAfter is how long a start waits for the bucket before it goes on without it.
	isolatedAfter = 10 * time.Second
	// isolatedGap is left out of the seqs of an epoch that goes on: ids may have been reserved with
	// seqs that are in no row. A reserved id holds its instant too, so that even more of them
	// would have to be reserved again in the same millisecond to meet.
	isolatedGap = 1 << 24
)

// ErrOldDisk says that the data directory does not match the bucket's manifest: another owner has
// written since. It must be set aside, and the shard started as after the loss of the disk (R10).
var ErrOldDisk = errors.New("data directory is older than the bucket's manifest")

// errIsolated says that the bucket gave no answer and the shard may start without it.
var errIsolated = errors.New("no answer from the bucket")

// Taking is what it takes to own a shard. Tier is nil without a bucket.
type Taking struct {
	Store     *localstore.Store
	Tier      *tiered.Tier
	Log       *zap.Logger
	Now       func() delay.Due // the guarded clock
	ClusterID string           // of a new cluster without a bucket; empty: made
	Pause     time.Duration    // T of rule R11
	Stop      bool             // an owner that gets no answer stops: it does not start without one
}

// Ownership is what taking the shard brought.
type Ownership struct {
	Meta      localstore.Meta
	Books     delay.Books
	Clean     bool          // the last owner was drained
	Horizon   delay.Due     // push messages up to it may have been claimed before
	ClaimFrom delay.Due     // nothing is claimed before it
	Restore   *tiered.State // set when the local store is new and the bucket is not
	Behind    bool          // rows may have to be uploaded that the buffer does not hold
	Isolated  bool          // the bucket gave no answer: the last epoch goes on (rule R11)
	First     delay.Seq     // seqs above it are handed out
}

// Own takes the next epoch, in the manifest when there is a tier (rule R4), or goes on with the
// last one when the bucket does not answer and that is allowed (rule R11). ErrOldDisk leaves
// everything as it was.
func (t Taking) Own(ctx context.Context) (Ownership, error) {
	own := Ownership{Meta: t.Store.Meta(), Books: t.Store.Books()}
	own.Clean = own.Meta.Clean
	if !own.Clean {
		own.Horizon = own.Meta.ClaimHorizon
	}
	own.Meta.Clean = false
	var err error
	if t.Tier == nil {
		err = t.alone(&own)
	} else {
		err = t.inTier(ctx, &own)
	}
	cut := own.Restore == nil && !planted.Is(planted.PauseCutShort)
	if now := t.Now(); cut && now < own.Meta.LostUpTo {
		// A takeover whose pause was cut short by a crash: the owner before may still live (R11).
		own.ClaimFrom = min(own.Meta.LostUpTo, now.Add(t.Pause))
	}
	if err == nil {
		own.First, err = firstSeq(own.Meta.Epoch, own.Isolated, t.Store.LastSeq())
	}
	if err != nil {
		return own, err
	}
	return own, t.write(own.Meta, own.Books)
}

func (t Taking) alone(own *Ownership) error {
	if n := t.Store.Counts().Cold.Messages; n > 0 {
		return fmt.Errorf("%w: %d messages of this data directory are only in its bucket; "+
			"start with that bucket", delay.ErrInvalid, n)
	}
	m := &own.Meta
	m.Adopted = true
	if m.Epoch == 0 {
		m.ClusterID, m.IDsComplete = t.ClusterID, true
		if m.ClusterID == "" {
			m.ClusterID = randomID()
		}
	}
	if m.Epoch == 0 || !planted.Is(planted.EpochReused) {
		m.Epoch++
	}
	m.Boundary = delay.MaxKey
	return nil
}

func (t Taking) inTier(ctx context.Context, own *Ownership) error {
	m := &own.Meta
	st, err := t.look(ctx, m)
	if errors.Is(err, errIsolated) {
		own.Isolated, own.Behind = true, !own.Clean
		t.Log.Warn("bucket does not answer, starting on the last epoch",
			zap.Uint32("epoch", uint32(m.Epoch)), zap.Error(err))
		return nil
	}
	if err != nil {
		return err
	}
	fresh := m.Epoch == 0
	if err := Believable(m, st); err != nil {
		return err
	}
	switch {
	case st == nil && fresh:
		m.IDsComplete, m.Adopted = true, true
	case st != nil && fresh:
		own.Restore = st
	}
	if st == nil {
		m.Boundary = delay.Key{}
	}
	if err := Follow(m, st); err != nil {
		return err
	}
	// The nonce is on the disk before the manifest names it (rule R10).
	if err := t.write(*m, own.Books); err != nil {
		return err
	}
	taken, err := t.Tier.Take(ctx, m.NextNonce, st == nil)
	if err != nil {
		return fmt.Errorf("take the shard: %w", err)
	}
	m.ClusterID, m.Epoch = taken.ClusterID, taken.Epoch
	m.Nonce, m.ManifestVersion = m.NextNonce, taken.Version
	own.Behind = !own.Clean && !fresh && !planted.Is(planted.BuffersTrusted)
	now := t.Now()
	if own.Restore != nil {
		// The owner before may have committed since the manifest was read.
		own.Restore = &taken
		own.Horizon = max(taken.ClaimHorizon, now.Add(t.Pause)) // rule R12
		if planted.Is(planted.HorizonNotTaken) {
			own.Horizon = 0
		}
		m.ClaimHorizon = own.Horizon
		// Leases, and acks since the last commit, were on the disk that is gone.
		if m.LostBefore, m.LostUpTo = taken.Epoch, own.Horizon; st.Released {
			m.LostUpTo = st.WrittenAt
		}
		if !st.Released && !planted.Is(planted.NoPause) {
			own.ClaimFrom = now.Add(t.Pause)
		}
	}
	return nil
}

// Believable refuses a data directory that is not the latest of what st, nil for none, says
// (rule R10), and a manifest that has vanished.
func Believable(m *localstore.Meta, st *tiered.State) error {
	fresh := m.Epoch == 0
	switch {
	case st == nil && m.ManifestVersion > 0 && !planted.Is(planted.ManifestRecreated):
		return fmt.Errorf("%w from the bucket; version %d was committed from this data directory",
			tiered.ErrVanished, m.ManifestVersion)
	case st != nil && !fresh && !ours(m, st) && !planted.Is(planted.OldDiskBelieved):
		return fmt.Errorf("%w: local epoch %d version %d, manifest epoch %d version %d",
			ErrOldDisk, m.Epoch, m.ManifestVersion, st.Epoch, st.Version)
	case !fresh && !m.Adopted && !planted.Is(planted.HalfRestored):
		return fmt.Errorf("%w: a restore from the bucket was interrupted", ErrOldDisk)
	}
	return nil
}

// Follow prepares m for taking the shard from st, nil for none: what is ours is known as such
// before another nonce is written. An attempt to take the shard may end here, or after the manifest
// was written, any number of times.
func Follow(m *localstore.Meta, st *tiered.State) error {
	if st != nil && m.Epoch != 0 && !planted.Is(planted.NonceForgotten) {
		m.Nonce, m.ManifestVersion = st.Nonce, st.Version
	}
	if _, err := rand.Read(m.NextNonce[:]); err != nil {
		return fmt.Errorf("nonce: %w", err)
	}
	return nil
}

// ours reports whether the manifest is the one this data directory wrote last, or the one it was
// just writing (rule R10).
func ours(m *localstore.Meta, st *tiered.State) bool {
	if st.ClusterID != m.ClusterID {
		return false
	}
	switch st.Nonce {
	case m.Nonce:
		return st.Version == m.ManifestVersion ||
			st.Version == m.ManifestVersion+1 && !planted.Is(planted.OwnCommitDisowned)
	case m.NextNonce:
		return st.Version == m.ManifestVersion+1
	default:
		return false
	}
}

func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// look reads the manifest. errIsolated: there was no answer, and the shard may do without.
// Another cluster's bucket or a refusal is an answer.
func (t Taking) look(ctx context.Context, m *localstore.Meta) (*tiered.State, error) {
	if m.Epoch > 0 && t.Tier.ClusterID() != m.ClusterID {
		return nil, fmt.Errorf("%w: the bucket is for cluster %s, the data directory is of "+
			"cluster %s", delay.ErrInvalid, t.Tier.ClusterID(), m.ClusterID)
	}
	if m.Epoch == 0 || !m.Adopted || m.ManifestVersion == 0 || t.Stop {
		return t.Tier.Load(ctx)
	}
	look, cancel := context.WithTimeout(ctx, isolatedAfter)
	defer cancel()
	st, err := t.Tier.Load(look)
	silent := errors.Is(err, delay.ErrUnavailable) || look.Err() != nil
	if err != nil && silent && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: %w", errIsolated, err)
	}
	return st, err
}

// firstSeq is the seq above which a start hands seqs out. A start on the last epoch goes on above
// all that were handed out before (rule R4).
func firstSeq(epoch delay.Epoch, isolated bool, last delay.Seq) (delay.Seq, error) {
	first := delay.MakeSeq(epoch, 0)
	if !isolated {
		return first, nil
	}
	used := max(last, first).Counter()
	if planted.Is(planted.SeqReused) {
		return first, nil
	}
	if last.Epoch() > epoch || used > delay.MaxCounter-isolatedGap {
		return 0, fmt.Errorf("%w: epoch %d has no seqs left after %d.%d, and another needs the bucket",
			delay.ErrUnavailable, epoch, last.Epoch(), last.Counter())
	}
	return delay.MakeSeq(epoch, used+isolatedGap), nil
}

// write stores meta and books and waits for the sync.
func (t Taking) write(m localstore.Meta, books delay.Books) error {
	b := t.Store.NewBatch()
	b.SetMeta(m)
	b.SetBooks(books)
	pending, err := t.Store.Apply(b)
	if err != nil {
		return err
	}
	_, err = pending.Wait()
	return err
}
