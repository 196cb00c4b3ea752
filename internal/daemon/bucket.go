// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/internal/server/tierjson"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/filesystem"
	"github.com/cicadamq/cicada/tiered/objstore/probe"
	"github.com/cicadamq/cicada/tiered/objstore/s3"
)

// farApart is how far the system clock may be from the store's before it is told: the step that
// the guarded clock minds (rule R21), and the second that a Date header leaves out.
const farApart = 3 * time.Second

// OpenBucket opens the cold tier's store; nil is --bucket none. create makes a directory that is
// missing, and a bucket where the configuration asks for it. keys are those of an S3 store. This
// is the only place that knows the kinds of buckets.
func OpenBucket(
	ctx context.Context, b config.Bucket, keys config.Credentials, create bool,
) (objstore.Bucket, error) {
	switch b.Kind {
	case config.NoBucket:
		return nil, nil
	case config.FileBucket:
		if !create {
			if _, err := os.Stat(b.Dir); err != nil {
				return nil, fmt.Errorf("open bucket %s: %w", b, err)
			}
		}
		bucket, err := filesystem.Open(b.Dir)
		if err != nil {
			return nil, err // not a nil *filesystem.Bucket in an interface
		}
		return bucket, nil
	case config.S3Bucket:
		bucket, err := s3.Open(ctx, s3.Options{
			Bucket: b.Name, Prefix: b.Prefix, Endpoint: b.Endpoint, Region: b.Region,
			PathStyle: b.PathStyle, CreateBucket: create && b.CreateBucket,
			AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey.Reveal(),
			SessionToken: keys.SessionToken.Reveal(),
		})
		if err != nil {
			return nil, err // not a nil *s3.Bucket in an interface
		}
		return bucket, nil
	default:
		return nil, fmt.Errorf("%w: bucket of kind %q", delay.ErrInvalid, b.Kind)
	}
}

// tryOut refuses a remote store that breaks a promise (M5), and tells what an operator should know
// of one that keeps them.
func (d *Daemon) tryOut(ctx context.Context) error {
	if d.cfg.Bucket.Kind != config.S3Bucket {
		return nil // conditions of files are ours
	}
	verdict, err := probe.Probe(ctx, d.bucket)
	if err != nil {
		return fmt.Errorf("try bucket %s out: %w", d.cfg.Bucket, err)
	}
	d.probed.Store(&tierjson.Probed{Verdict: verdict, At: d.opts.Now()})
	d.log.Info("bucket tried out", zap.Stringer("bucket", d.cfg.Bucket),
		zap.Bool("verifies_checksums", verdict.Checksums))
	if c, ok := d.bucket.(objstore.Clock); ok {
		remote, local, known := c.RemoteTime()
		if ahead := local.Sub(remote); known && ahead.Abs() > farApart {
			d.log.Warn("the system clock and the bucket's differ: see the clock in the status",
				zap.Duration("system_ahead", ahead), zap.Time("bucket_time", remote))
		}
	}
	return nil
}
