// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/probe"
	"github.com/cicadamq/cicada/tiered/objstore/s3/s3test"
)

// remote is a configuration with its bucket in a server that runs as opts say.
func remote(t *testing.T, opts s3test.Options) (*s3test.Server, *config.Config) {
	t.Helper()
	s := s3test.New(opts)
	t.Cleanup(s.Close)
	cfg := conf(t, t.TempDir(), map[string]string{"bucket": "s3://cold/some/where?path_style=true" +
		"&create_bucket=true&endpoint=" + url.QueryEscape(s.URL)})
	cfg.S3 = config.Credentials{
		AccessKeyID: s3test.AccessKey, SecretAccessKey: s3test.SecretKey,
		SessionToken: s3test.SessionToken,
	}
	return s, cfg
}

// The whole daemon must work on an S3 store: make the bucket, hold what was promised as tier, and
// give it back to a daemon that has lost its disk.
func TestS3(t *testing.T) {
	s, cfg := remote(t, s3test.Options{})
	d, stop := start(t, cfg)
	call(t, d, "POST", "/v1/messages",
		`{"id":"a","target":"pull:q","delay":"1h","body":"x","durability":"tier"}`, 200)
	require.NoError(t, stop())
	for _, key := range s.Keys("cold") {
		require.True(t, strings.HasPrefix(key, "some/where/v1/"), "left behind: %s", key)
	}
	cfg.DataDir = t.TempDir()
	d, stop = start(t, cfg)
	require.Eventually(t, func() bool { // client ids are known when their restore has ended (R14)
		return call(t, d, "GET", "/v1/status", "", 200)["restoring"] == false
	}, 30*time.Second, 10*time.Millisecond)
	require.Equal(t, "scheduled", call(t, d, "GET", "/v1/messages/a", "", 200)["state"])
	require.NoError(t, stop())
}

// A store that ignores conditions must be refused with the reason before the cluster is in it
// (M5); one that refuses us, with what to look at.
func TestUnfitBucket(t *testing.T) {
	s, cfg := remote(t, s3test.Options{IgnoreConditions: true})
	_, err := Open(t.Context(), cfg, Options{Logger: zap.NewNop()})
	require.ErrorIs(t, err, probe.ErrUnfit)
	require.ErrorContains(t, err, "conditional writes are ignored")
	require.ErrorContains(t, err, "hint: two daemons could overwrite each other")
	require.Empty(t, s.Keys("cold"))
	_, cfg = remote(t, s3test.Options{})
	cfg.S3.SecretAccessKey = ""
	_, err = Open(t.Context(), cfg, Options{Logger: zap.NewNop()})
	require.ErrorIs(t, err, objstore.ErrRefused)
	require.ErrorContains(t, err, "AWS_SECRET_ACCESS_KEY")
}

// No secret may be in the log, not even at the most talkative level and from a store that repeats
// what it was sent. A store whose clock differs must be told.
func TestS3Log(t *testing.T) {
	var angry atomic.Bool
	s, cfg := remote(t, s3test.Options{Before: func(w http.ResponseWriter, r s3test.Request) bool {
		w.Header().Set("Date", time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat))
		if angry.Load() {
			s3test.Fail(w, http.StatusForbidden, s3test.SessionToken, r.Header.Get("Authorization"))
		}
		return angry.Load()
	}})
	var text bytes.Buffer
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()),
		zapcore.Lock(zapcore.AddSync(&text)), zapcore.DebugLevel))
	d, err := Open(t.Context(), cfg, Options{Logger: log})
	require.NoError(t, err)
	require.Contains(t, text.String(), "the system clock and the bucket's differ")
	require.NoError(t, d.close())
	angry.Store(true)
	_, err = Open(t.Context(), cfg, Options{Logger: log})
	require.ErrorIs(t, err, objstore.ErrRefused)
	require.NotEmpty(t, s.Requests())
	text.WriteString(err.Error())
	require.NoError(t, cfg.Print(&text))
	for _, hidden := range []string{s3test.SecretKey, s3test.SessionToken, "Signature="} {
		require.NotContains(t, text.String(), hidden)
	}
}
