// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Secret signs requests. It prints as its ID only.
type Secret struct {
	ID  string // names the secret to the operator; not sent
	Key []byte // 16 bytes or more
}

// String hides the key.
func (s Secret) String() string { return "secret " + s.ID + " ***" }

// GoString hides the key from %#v.
func (s Secret) GoString() string { return s.String() }

// Format hides the key from every other verb: %d of a struct prints its bytes.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText hides the key from JSON, YAML and logs.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func checkSecrets(secrets []Secret) error {
	if len(secrets) > maxSecrets {
		return fmt.Errorf("%w: webhooks.secrets: %d, want at most %d", delay.ErrInvalid,
			len(secrets), maxSecrets)
	}
	for _, s := range secrets {
		if len(s.Key) < minSecretBytes {
			return fmt.Errorf("%w: webhooks.secrets: %q has %d bytes, want at least %d",
				delay.ErrInvalid, s.ID, len(s.Key), minSecretBytes)
		}
	}
	return nil
}

// sign is the value of cicada-signature: the time and one signature per secret. id is as the header
// carries it.
func sign(secrets []Secret, id string, unix int64, body []byte) string {
	b := strconv.AppendInt([]byte("t="), unix, 10)
	for _, s := range secrets {
		b = append(b, ",v1="...)
		b = hex.AppendEncode(b, signature(s.Key, id, unix, body))
	}
	return string(b)
}

// signature is HMAC-SHA256 over id "." time "." body.
func signature(key []byte, id string, unix int64, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(strconv.AppendInt([]byte(id+"."), unix, 10))
	mac.Write([]byte{'.'})
	mac.Write(body)
	return mac.Sum(nil)
}

// Verify is for receivers: it returns nil when header, the value of cicada-signature, holds a
// signature by key over id (the value of cicada-id) and body that is at most tolerance from now.
// Otherwise the error, which wraps delay.ErrInvalid, says what does not fit.
func Verify(header, id string, body, key []byte, now time.Time, tolerance time.Duration) error {
	bad := func(reason string) error {
		return fmt.Errorf("%w: cicada-signature: %s", delay.ErrInvalid, reason)
	}
	stamp, rest, _ := strings.Cut(header, ",")
	digits, ok := strings.CutPrefix(stamp, "t=")
	unix, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || strconv.FormatInt(unix, 10) != digits {
		return bad("no time")
	}
	if unix < 0 || unix > delay.MaxDue.Time().Unix() {
		return bad("time out of range")
	}
	if now.Sub(time.Unix(unix, 0)).Abs() > tolerance {
		return bad("too old or from the future")
	}
	want := signature(key, id, unix, body)
	for part := range strings.SplitSeq(rest, ",") {
		text, ok := strings.CutPrefix(part, "v1=")
		if got, err := hex.DecodeString(text); ok && err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return bad("no signature by this key")
}
