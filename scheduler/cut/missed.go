// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/upload"
	"github.com/cicadamq/cicada/tiered"
)

// Missed adds to part what was delivered before a crash and is in no cut. A plain delivery leaves
// nothing on the disk but the absence of its row, and that is what is looked for: below the
// boundary the local rows are the whole truth (rule R1), so what segments hold between the
// watermark of the cut and upTo, and the store does not, has ended. Without its mark, the loss of
// the disk before the watermark passes it would bring it back, however long ago the last commit
// was (S6).
func (m *Maker) Missed(
	ctx context.Context, tier *tiered.Tier, part *upload.Part, upTo delay.Due,
) error {
	upper := delay.Key{Due: upTo + 1}
	if bound := m.store.Meta().Boundary; bound.Less(upper) {
		upper = bound
	}
	if !part.Mark.Less(upper) {
		return nil
	}
	var failed error
	err := tier.Scan(ctx, part.Mark, upper, func(k delay.Key, _ []byte) bool {
		var there bool
		if there, failed = m.there(k); failed == nil && !there {
			part.Done = append(part.Done, k)
		}
		return failed == nil
	})
	if err = errors.Join(err, failed, m.unmarked(ctx, tier, part)); err != nil {
		return fmt.Errorf("find deliveries before the crash: %w", err)
	}
	slices.SortFunc(part.Done, delay.Key.Compare)
	part.Done = slices.Compact(part.Done)
	return nil
}

// unmarked leaves out of part what has a mark of its own, uploaded or still in the outbox: being
// cancelled or moved takes a row away, too. Called delivered, a message whose mark waits for the
// row that it points to would be lost with the disk (rule R3), and one that has moved could not be
// found by its old key. The outbox is read after the rows, so that it knows of whatever took them.
func (m *Maker) unmarked(ctx context.Context, tier *tiered.Tier, part *upload.Part) error {
	ended := make(map[delay.Key]bool, len(part.Done)) // and whether by a mark
	for _, k := range part.Done {
		ended[k] = false
	}
	note := func(mark delay.Mark) bool {
		if _, is := ended[mark.Key]; is {
			ended[mark.Key] = true
		}
		return true
	}
	err := m.store.ScanOutbox(m.store.Meta().OutboxDone, func(_ uint64, mark delay.Mark) bool {
		return note(mark)
	})
	if err == nil && len(ended) > 0 {
		err = tier.ScanMarks(ctx, note)
	}
	part.Done = slices.DeleteFunc(part.Done, func(k delay.Key) bool { return ended[k] })
	return err
}

// there reports whether the store still holds the message of k: to be delivered, or as a dead
// letter, which a mark would bury. It looks in the order in which a message moves.
func (m *Maker) there(k delay.Key) (bool, error) {
	if _, err := m.store.Row(k); !errors.Is(err, delay.ErrNotFound) {
		return err == nil, err
	}
	if _, parked, err := m.store.ParkedLane(k); err != nil || parked {
		return parked, err
	}
	if _, _, err := m.store.Dead(k); !errors.Is(err, delay.ErrNotFound) {
		return err == nil, err
	}
	return false, nil
}
