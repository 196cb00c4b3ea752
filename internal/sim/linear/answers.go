// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"errors"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
)

// Accepted is the answer to a send.
func Accepted(r *scheduler.Receipt, err error) Answer {
	a := Answer{
		Result: Done, Due: r.Due, Generation: r.Generation, Tier: r.Durability == delay.Tier,
	}
	switch {
	case err == nil && r.Duplicate:
		a.Result = Duplicate
	case err == nil:
	case r.Err == nil:
		a.Result, a.Tier = Unknown, false
	case errors.Is(err, delay.ErrExists):
		a.Result = Exists
	case errors.Is(err, delay.ErrTooLate):
		a.Result = TooLate
	default:
		a.Result = NoEffect
	}
	return a
}

// Changed is the answer to a change, at now.
func Changed(r *scheduler.ChangeResult, err error, now delay.Due) Answer {
	a := Answer{
		Result: Done, State: r.State, Due: r.Due, Tier: r.Durability == delay.Tier,
		At: now,
	}
	switch {
	case err != nil:
		a.Result, a.Tier = Unknown, false
	case r.Verdict == scheduler.Stopped:
		a.Result = Stopped
	case r.Verdict == scheduler.TooLate:
		a.Result = TooLate
	case r.Verdict == scheduler.NotFound:
		a.Result = NotFound
	}
	return a
}

// DeadLetter is the answer to a retry, due then, or to a deletion.
func DeadLetter(due delay.Due, err error) Answer {
	switch {
	case err == nil:
		return Answer{Result: Done, Due: due}
	case errors.Is(err, delay.ErrNotFound):
		return Answer{Result: NotFound}
	default:
		return Answer{Result: Unknown}
	}
}

// Acked is the answer to an ack.
func Acked(r scheduler.SettleResult, err error) Answer {
	switch {
	case err != nil || r == scheduler.SettleUnknown:
		return Answer{Result: Unknown}
	case r == scheduler.Acked:
		return Answer{Result: Done}
	default:
		return Answer{Result: NoEffect}
	}
}

// Seen is the answer to a look, at now.
func Seen(info *scheduler.Info, err error, now delay.Due) Answer {
	a := Answer{
		Result: InState, State: info.State, Due: info.Due, Generation: info.Generation, At: now,
	}
	switch {
	case errors.Is(err, delay.ErrNotFound):
		a.Result = NotFound
	case err != nil:
		a.Result = NoEffect
	}
	return a
}

// KindOf is the kind of a change.
func KindOf(c scheduler.Change) Kind {
	return [...]Kind{Cancel, Stop, Reschedule, Fire}[c]
}
