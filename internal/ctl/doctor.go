// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/doctor"
)

const doctorHelp = `Check a running daemon: reachable, accepting, clock, disk, bucket, books,
targets, and what it found out about its object store.

  cicada doctor
  cicada doctor --config cicada.yaml
  cicada doctor --bucket 's3://cold/cicada?endpoint=http://minio:9000'

--config looks at the brokers of that file from here: reachable, topics, permissions,
settings that lose messages; with exactly_once also a transaction, which is aborted.

--bucket tries that bucket out from here, with a few small objects that are deleted
again; it may be one that no daemon uses yet.

Each line is a check with ok, note, warn or FAIL. The exit status is 1 when one fails.`

func (a *app) doctor() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check a running daemon", Long: doctorHelp, Args: args(0, 0, ""),
	}
	url := cmd.Flags().String("bucket", "", "try this bucket out, too")
	env, _ := a.Env("CICADA_CONFIG")
	file := cmd.Flags().String("config", env, "look at the brokers of this file (CICADA_CONFIG)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		found := doctor.Diagnose(cmd.Context(), c, a.Now)
		if *url != "" {
			more, err := a.tryOut(cmd.Context(), *url)
			if err != nil {
				return err
			}
			found = append(found, more...)
		}
		if *file != "" {
			brokers, err := a.Daemon.Brokers(cmd.Context(), *file)
			if err != nil {
				return err
			}
			found = append(found, doctor.OfBrokers(brokers)...)
		}
		t := &table{columns: []string{"CHECK", "RESULT", "DETAIL"}}
		failed := false
		for _, f := range found {
			t.add(f.Check, f, f.Check, f.Result, f.Detail)
			failed = failed || f.Result == doctor.Fail
		}
		if err := a.print(t, false); err != nil {
			return err
		}
		if failed {
			return &statusError{exitError}
		}
		return nil
	}
	return cmd
}

// tryOut tries a bucket out from here.
func (a *app) tryOut(ctx context.Context, url string) ([]doctor.Finding, error) {
	_, url, err := a.Daemon.Places("", map[string]string{"bucket": url})
	if err != nil {
		return nil, err
	}
	bucket, err := a.Bucket(ctx, url)
	if err != nil {
		return nil, err
	}
	if bucket == nil {
		return nil, usagef("--bucket none: there is nothing to try out")
	}
	found := doctor.ExamineBucket(ctx, bucket, a.Now)
	return found, bucket.Close()
}
