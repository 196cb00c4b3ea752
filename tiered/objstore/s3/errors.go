// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// action is what a call does: the same answer is certain for a read and uncertain for a write.
type action uint8

const (
	reads   action = iota
	writes         // an unconditional write
	creates        // a Put that wants the key to be absent
	changes        // a Put that wants a tag
)

// The codes of S3 that decide where the status does not.
const (
	noSuchBucket = "NoSuchBucket"
	noSuchKey    = "NoSuchKey"
	skewed       = "RequestTimeTooSkewed"
	ownedByYou   = "BucketAlreadyOwnedByYou"
)

// slowCodes are refused before anything is done. A 503 with another code may come from a proxy
// that gave up waiting, or from a store that wrote to some of its disks.
var slowCodes = regexp.MustCompile(`^(SlowDown|SlowDownRead|Throttling|ThrottlingException|` +
	`RequestLimitExceeded|RequestThrottled|TooManyRequests)$`)

// cutOffCodes say with status 400 that the request did not arrive whole: worth repeating.
var cutOffCodes = regexp.MustCompile(`^(RequestTimeout|IncompleteBody)$`)

// plainWord is what a code or an id of a request may look like to be told (U5).
var plainWord = regexp.MustCompile(`^[A-Za-z0-9.+/=_-]{1,128}$`)

// errWithheld stands for an error that repeats a secret (U5).
var errWithheld = errors.New("s3: withheld, because the text holds a secret")

// fault makes the error of a call (U4, U5).
func (b *Bucket) fault(op, key string, does action, err error) error {
	answer, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		if b.leaks(err.Error()) {
			err = errWithheld
		}
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	said := b.said(answer)
	if sentinel := sentinelOf(answer, does); sentinel != nil {
		return fmt.Errorf("%s %s: %w: %s", op, key, sentinel, said)
	}
	return fmt.Errorf("%s %s: s3: %s", op, key, said)
}

// sentinelOf is the certain answer that a stands for, or nil.
func sentinelOf(a minio.ErrorResponse, does action) error {
	switch status := a.StatusCode; {
	case a.Code == skewed:
		return objstore.ErrSkewed
	case a.Code == noSuchBucket:
		return objstore.ErrRefused // never ErrNotFound: a misspelt bucket is not an empty one
	case status == http.StatusNotFound, a.Code == noSuchKey:
		switch does {
		case reads:
			return objstore.ErrNotFound
		case changes:
			return objstore.ErrPrecondition
		default:
			return nil
		}
	case status == http.StatusPreconditionFailed,
		status == http.StatusConflict && planted.Is(planted.ConflictIsExists):
		return objstore.ErrPrecondition
	case status == http.StatusConflict, status == http.StatusTooManyRequests,
		slowCodes.MatchString(a.Code):
		// 409 is two conditional writes at the same moment, and this one was not made.
		return objstore.ErrThrottled
	case status == http.StatusServiceUnavailable && does == reads:
		return objstore.ErrThrottled
	case cutOffCodes.MatchString(a.Code), status == http.StatusRequestTimeout:
		return nil
	case status >= 300 && status < 500, status == http.StatusNotImplemented,
		a.Code == "AccessDenied":
		return objstore.ErrRefused
	default:
		return nil
	}
}

// said is what of an answer is told (U5). Messages are not: proxies and some stores repeat the
// request's headers in them.
func (b *Bucket) said(a minio.ErrorResponse) string {
	var parts []string
	if a.StatusCode != 0 {
		parts = append(parts, fmt.Sprintf("status %d", a.StatusCode))
	}
	if plainWord.MatchString(a.Code) && !b.leaks(a.Code) {
		parts = append(parts, a.Code)
	}
	if plainWord.MatchString(a.RequestID) && !b.leaks(a.RequestID) {
		parts = append(parts, "request "+a.RequestID)
	}
	if a.Code == skewed {
		parts = append(parts, b.skew())
	}
	if len(parts) == 0 {
		return "no reason given"
	}
	return strings.Join(parts, ", ")
}

// skew tells how far the clocks are apart, by the last answer that had a date.
func (b *Bucket) skew() string {
	remote, local, ok := b.RemoteTime()
	switch ahead := local.Sub(remote).Round(time.Second); {
	case !ok:
		return "set this machine's clock"
	case ahead > 0:
		return fmt.Sprintf("this machine's clock is %v ahead of the store's", ahead)
	default:
		return fmt.Sprintf("this machine's clock is %v behind the store's", -ahead)
	}
}

// leaks reports whether text holds a secret.
func (b *Bucket) leaks(text string) bool {
	for _, s := range b.secrets {
		if s != "" && strings.Contains(text, s) {
			return true
		}
	}
	return false
}
