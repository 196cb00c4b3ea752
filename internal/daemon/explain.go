// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/probe"
)

// explain adds what an operator can do about err.
func explain(err error, cfg *config.Config) error {
	if err == nil {
		return nil
	}
	if hint := hintFor(err, cfg); hint != "" {
		return fmt.Errorf("%w\nhint: %s", err, hint)
	}
	return err
}

func hintFor(err error, cfg *config.Config) string {
	switch {
	case errors.Is(err, localstore.ErrLocked):
		return "another process uses the data directory " + cfg.DataDir +
			"; stop it, or choose another with --data-dir"
	case errors.Is(err, localstore.ErrVersion):
		return "another version of cicada wrote " + cfg.DataDir + "; run that version, or move " +
			StoreDir(cfg.DataDir) + " away: what is in the bucket is restored from there"
	case errors.Is(err, delay.ErrFenced):
		return "another daemon has taken over " + cfg.Bucket.String() + "; only one may use it. " +
			"Stop the other one before starting this one, or give each its own bucket"
	case errors.Is(err, syscall.EADDRINUSE):
		return "something already listens on " + cfg.Listen + "; stop it, or choose another " +
			"address with --listen"
	case errors.Is(err, syscall.ENOSPC):
		return "the disk is full; make room below " + cfg.DataDir + " and " + cfg.Bucket.Dir +
			", then start again: nothing that was accepted is lost"
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return "the user running cicada needs to write to " + cfg.DataDir + " and " +
			cfg.Bucket.String()
	case errors.Is(err, tiered.ErrVanished), cfg.Bucket.Kind == config.FileBucket &&
		errors.Is(err, fs.ErrNotExist):
		return "nothing was changed, and nothing is made anew. Is " + cfg.Bucket.String() + " the " +
			"bucket, and is it mounted? What it held has to come back (from a copy or an older " +
			"version); what was not uploaded is still in " + StoreDir(cfg.DataDir)
	case errors.Is(err, tiered.ErrVersion):
		return "nothing was changed. A newer version of cicada wrote to the bucket; run that one"
	case errors.Is(err, delay.ErrCorrupt):
		return "nothing was changed. Look with `cicada store check` and `cicada tier verify`. " +
			"To go on with what the bucket holds, move " + StoreDir(cfg.DataDir) + " away"
	case errors.Is(err, probe.ErrUnfit):
		return "two daemons could overwrite each other on this store without noticing. Use one " +
			"that honours If-None-Match and If-Match (docs/operations.md, S3), or file:///dir"
	case errors.Is(err, objstore.ErrSkewed):
		return "set this machine's clock, or the store's: the bucket itself is well"
	case errors.Is(err, objstore.ErrRefused) && cfg.Bucket.Kind == config.S3Bucket:
		return "check the bucket's name, endpoint and region, AWS_ACCESS_KEY_ID and " +
			"AWS_SECRET_ACCESS_KEY, what they may do, and this machine's clock"
	case errors.Is(err, delay.ErrUnavailable):
		return "the bucket " + cfg.Bucket.String() + " does not answer"
	default:
		return ""
	}
}
