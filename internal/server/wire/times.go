// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"math"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// maxDurationMillis is the longest duration that a time.Duration holds.
const maxDurationMillis = math.MaxInt64 / int64(time.Millisecond)

var (
	errTooFar     = errors.New("beyond the year 9999")
	errBefore1970 = errors.New("before 1970")
	errNegative   = errors.New("must not be negative")
)

// ParseInstant is delay.ParseInstant.
func ParseInstant(s string) (delay.Due, error) { return delay.ParseInstant(s) }

// InstantOfMillis is delay.InstantOfMillis.
func InstantOfMillis(ms int64) (delay.Due, error) { return delay.InstantOfMillis(ms) }

// ParseMillis is delay.ParseMillis.
func ParseMillis(s string) (int64, error) { return delay.ParseMillis(s) }
