// SPDX-License-Identifier: Apache-2.0

// Package trouble tells of loops whose work fails and is repeated: once at the beginning and once
// at the end, not every time.
package trouble

import (
	"errors"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
)

// Loop tells once when the work of a loop begins to fail, and once when it succeeds again. That
// the bucket does not answer is told by the tier.
type Loop struct {
	Log  *zap.Logger
	What string // is done
	told bool
}

// Note tells what came of a round.
func (t *Loop) Note(err error) {
	switch {
	case err == nil && t.told:
		t.told = false
		t.Log.Info("background work succeeds again", zap.String("what", t.What))
	case err != nil && errors.Is(err, delay.ErrUnavailable):
		t.Log.Debug("background work waits for the bucket", zap.String("what", t.What),
			zap.Error(err))
	case err != nil && !t.told:
		t.told = true
		t.Log.Error("background work fails, will be repeated", zap.String("what", t.What),
			zap.Error(err))
	}
}
