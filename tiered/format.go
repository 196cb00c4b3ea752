// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// The object formatKey is text, for the operator who looks into the bucket:
//
//	cicada tier
//	format 1
//	cluster 01jcz...
//	crc32c 0a1b2c3d
const (
	formatStart = "cicada tier\nformat "
	formatHead  = formatStart + "1\ncluster "
)

// ErrVersion is an object in the bucket that a newer program wrote. It comes with delay.ErrCorrupt.
var ErrVersion = codec.ErrVersion

func encodeFormat(clusterID string) []byte {
	text := formatHead + clusterID + "\n"
	return fmt.Appendf(nil, "%scrc32c %08x\n", text, codec.CRC([]byte(text)))
}

func decodeFormat(body []byte) (clusterID string, err error) {
	rest, ok := strings.CutPrefix(string(body), formatHead)
	id, _, _ := strings.Cut(rest, "\n")
	if other, is := strings.CutPrefix(string(body), formatStart); is && !ok {
		other, _, _ = strings.Cut(other, "\n")
		return "", fmt.Errorf("%w: %w: %s: the bucket is of format %.20q, this program knows 1",
			delay.ErrCorrupt, ErrVersion, formatKey, other)
	}
	if !ok || checkClusterID(id) != nil || string(encodeFormat(id)) != string(body) {
		return "", fmt.Errorf("%w: %s: not the format object of this version: %.80q",
			delay.ErrCorrupt, formatKey, body)
	}
	return id, nil
}

// readFormat reads once more when the bytes are wrong, in case they were spoilt on the way.
func readFormat(ctx context.Context, client *objio.Client) (id string, err error) {
	for range 2 {
		var body []byte
		if body, _, err = client.Get(ctx, formatKey, 0); err != nil {
			return "", err
		}
		if id, err = decodeFormat(body); err == nil {
			return id, nil
		}
	}
	return "", err
}

const maxClusterID = 64

func checkClusterID(id string) error {
	if id == "" || len(id) > maxClusterID || !delay.ValidText(id) || strings.Contains(id, " ") {
		return delay.Invalid("cluster.id", "%q is not 1 to %d characters without blanks", id,
			maxClusterID)
	}
	return nil
}

// claimBucket reads the bucket's cluster id, or writes wanted (fresh when that is empty) into an
// empty bucket. created is true when this call did.
func claimBucket(
	ctx context.Context, client *objio.Client, wanted, fresh string, readOnly bool,
) (id string, created bool, err error) {
	if wanted != "" {
		fresh = wanted
	}
	tried := false
	for n := 1; ; n++ {
		id, err := readFormat(ctx, client)
		if err == nil {
			if wanted != "" && id != wanted {
				err = fmt.Errorf("%w: the bucket belongs to cluster %s, this is cluster %s",
					delay.ErrInvalid, id, wanted)
			}
			return id, tried && id == fresh, err
		}
		if !errors.Is(err, objstore.ErrNotFound) {
			return "", false, err
		}
		if readOnly {
			return "", false, fmt.Errorf("%w: the bucket holds no tier: %w", delay.ErrNotFound, err)
		}
		tried = true
		_, err = client.PutIf(ctx, formatKey, encodeFormat(fresh), objstore.Condition{Absent: true})
		switch {
		case err == nil:
			return fresh, true, nil
		case errors.Is(err, objstore.ErrRefused):
			return "", false, fmt.Errorf("create %s: %w", formatKey, err)
		case n >= client.Attempts() && !errors.Is(err, objstore.ErrPrecondition):
			return "", false, fmt.Errorf("create %s: %w: %w", formatKey, delay.ErrUnavailable, err)
		}
		if err := client.Pause(ctx, n); err != nil {
			return "", false, fmt.Errorf("create %s: %w", formatKey, err)
		}
	}
}
