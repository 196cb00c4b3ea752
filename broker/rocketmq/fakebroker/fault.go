// SPDX-License-Identifier: Apache-2.0

package fakebroker

import (
	"context"

	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
)

// Fault is what goes wrong with one request. The zero value is nothing.
type Fault struct {
	// Refuse, if not 0, is the answer; nothing is done.
	Refuse int
	// Answer, if not 0, is the answer after it was done: its fields and body stay.
	Answer int
	Remark string // goes with Refuse and Answer
	// Wait is waited for before anything is done; nil: nothing is.
	Wait <-chan struct{}
	// Lose does it and never answers.
	Lose bool
	// Cut does it and sends so many bytes of the answer, then closes; below 0: closes at once.
	Cut int
}

// answer is the frame that a request gets, and whether the connection ends with it.
func (s *server) answer(
	ctx context.Context, cmd *remoting.Command,
) (frame []byte, closes bool) {
	var f Fault
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault != nil {
		f = fault(cmd)
	}
	if f.Wait != nil {
		select {
		case <-f.Wait:
		case <-ctx.Done():
			return nil, true
		}
	}
	var r *remoting.Command
	switch {
	case !s.sign(cmd):
		r = cmd.Reply(remoting.NoPermission, "signature failed")
	case f.Refuse != 0:
		r = cmd.Reply(f.Refuse, f.Remark)
	default:
		r = s.handle(ctx, cmd)
	}
	if f.Answer != 0 {
		r.Code, r.Remark = f.Answer, f.Remark
	}
	if f.Lose || cmd.OneWay() {
		return nil, false
	}
	frame, err := r.Append(nil, remoting.DefaultMaxFrame)
	switch {
	case err != nil || f.Cut < 0:
		return nil, true
	case f.Cut > 0:
		return frame[:min(f.Cut, len(frame))], true
	}
	return frame, false
}
