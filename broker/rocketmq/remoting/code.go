// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"fmt"
	"strings"

	"github.com/cicadamq/cicada/delay"
)

// The requests this package makes or answers.
const (
	RequestPull            = 11
	RequestQuery           = 12
	RequestGroupOffset     = 14
	RequestCommitOffset    = 15
	RequestCreateTopic     = 17
	RequestBrokerConfig    = 26
	RequestRuntimeInfo     = 28
	RequestOffsetAt        = 29
	RequestMaxOffset       = 30
	RequestMinOffset       = 31
	RequestView            = 33
	RequestHeartbeat       = 34
	RequestDelayOffsets    = 45
	RequestTimerCheckpoint = 60
	RequestTimerMetrics    = 61
	RequestRoute           = 105
	RequestCluster         = 106
	RequestSend            = 310 // V2: one-letter fields
	RequestSendBatch       = 320
	RequestDeleteExpired   = 329
	RequestLitePull        = 361
	RequestRecall          = 370
)

// The answers.
const (
	OK                       = 0
	SystemError              = 1
	SystemBusy               = 2
	NotSupported             = 3
	FlushDiskTimeout         = 10
	SlaveNotAvailable        = 11
	FlushSlaveTimeout        = 12
	MessageIllegal           = 13
	ServiceNotAvailable      = 14
	VersionNotSupported      = 15
	NoPermission             = 16
	TopicNotExist            = 17
	PullNotFound             = 19
	PullRetry                = 20
	PullOffsetMoved          = 21
	QueryNotFound            = 22
	SubscriptionNotExist     = 24
	GroupNotExist            = 26
	InvalidParameter         = 29
	NotInCurrentUnit         = 206
	FlowControl              = 215
	IllegalOperation         = 604
	GoAway                   = 1500
	ControllerNotLeader      = 2007
	answerNone           int = -1 // no answer came
)

// Outcome is what became of a request. The zero value is Unknown.
type Outcome uint8

// The outcomes.
const (
	Unknown Outcome = iota // it may or may not have been done
	Yes                    // it was done
	No                     // it was not done; later it may be
	Never                  // it was not done, and the same request never will be
)

// String is one word.
func (o Outcome) String() string {
	return [...]string{"unknown", "yes", "no", "never"}[o]
}

// OutcomeOf is what the answer code means for a request to store something:
//
//	 0 ok                      Yes      stored as durably as the broker is configured for
//	 1 system error            Unknown  from "not enough replicas" to any exception after the store;
//	                                    Never when a batch's "size exceeded" what the broker takes
//	 2 system busy             No       refused before it was looked at: the queue was too long
//	 3 not supported           Never    the broker is too old, or it is a proxy
//	10 flush disk timeout      Unknown  stored, but not on its disk in time
//	11 slave not available     Unknown  stored, but only at the master
//	12 flush slave timeout     Unknown  stored, but not at the slave in time
//	13 message illegal         Never    too large, or its properties or its timer are
//	14 service not available   No       disk full, shutting down, or not the master
//	15 version not supported   Never    as a proxy answers what it does not forward
//	16 no permission           No       topic not writable, or the access key may not: can change
//	17 topic does not exist    No       can be made
//	26 group does not exist    No       can be made
//	29 invalid parameter       Never
//	206 not in current unit    No
//	215 flow control           No
//	604 illegal operation      Never
//	1500 go away               No       the broker leaves; the connection is made again
//	2007 not the leader        No
//	anything else              Unknown
//
// A message that was stored less durably than configured (10, 11, 12) is Unknown because that is
// exactly what can be said of it: whoever asks for its key later learns whether it is there.
func OutcomeOf(code int) Outcome {
	switch code {
	case OK:
		return Yes
	case SystemBusy, ServiceNotAvailable, NoPermission, TopicNotExist, GroupNotExist,
		NotInCurrentUnit, FlowControl, GoAway, ControllerNotLeader:
		return No
	case NotSupported, MessageIllegal, VersionNotSupported, InvalidParameter, IllegalOperation:
		return Never
	default:
		return Unknown
	}
}

// maxRemark bounds what of a broker's text is kept: it begins with the reason and goes on with a
// stack trace.
const maxRemark = 160

// Error is a request that was not answered with OK.
type Error struct {
	Request string // what was asked, in a word
	Addr    string // of whom
	Code    int    // the answer; below 0 when there was none
	Remark  string // the broker's words, cut
	Outcome Outcome
	Err     error // why there was no answer, or a sentinel of delay that fits the code
}

// Error says the operation, its object and the cause.
func (e *Error) Error() string {
	if e.Code == answerNone {
		return fmt.Sprintf("%s %s: %v", e.Request, e.Addr, e.Err)
	}
	text := fmt.Sprintf("%s %s: answer %d: %s", e.Request, e.Addr, e.Code, e.Remark)
	if why := e.advice(); why != "" {
		text += " (" + why + ")"
	}
	return text
}

// advice says what a refusal means to who configures this client, where a broker's words (those of
// ACL 2.0) tell that only to who configures the broker.
func (e *Error) advice() string {
	switch {
	case e.Code != NoPermission:
	case strings.Contains(e.Remark, "username cannot be null"):
		return "access is controlled there, and no access_key is configured"
	case strings.Contains(e.Remark, "is not found"):
		return "it knows nobody with the access_key that is configured"
	case strings.Contains(e.Remark, "signature"):
		return "the secret_key is not that of the access_key"
	}
	return ""
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// tooLarge is what a broker says, as a system error, of a batch beyond its maxMessageSize, before
// it stores any of it.
const tooLarge = "size exceeded"

// answered is the error for an answer that was not expected.
func answered(request, addr string, r *Command) *Error {
	e := &Error{
		Request: request, Addr: addr, Code: r.Code, Remark: cutRemark(r.Remark),
		Outcome: OutcomeOf(r.Code),
	}
	if r.Code == SystemError && strings.Contains(e.Remark, tooLarge) {
		e.Outcome = Never
	}
	switch {
	case r.Code == TopicNotExist || r.Code == QueryNotFound || r.Code == GroupNotExist:
		e.Err = delay.ErrNotFound
	case e.Outcome == Never:
		e.Err = delay.ErrInvalid
	default:
		e.Err = delay.ErrUnavailable
	}
	return e
}

// cutRemark keeps the first line of a remark, and of that what fits.
func cutRemark(s string) string {
	out := make([]rune, 0, min(len(s), maxRemark))
	for _, r := range s {
		if r == '\n' || r == '\r' || len(out) >= maxRemark {
			break
		}
		if r < ' ' || r == 0x7f {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}
