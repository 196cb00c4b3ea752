// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/filesystem"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
	"github.com/cicadamq/cicada/tiered/objstore/s3"
	"github.com/cicadamq/cicada/tiered/objstore/s3/s3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func remote(t *testing.T, opts s3test.Options) (*s3test.Server, *s3.Bucket) {
	t.Helper()
	opts.Bucket = "cold"
	s := s3test.New(opts)
	t.Cleanup(s.Close)
	b, err := s3.Open(t.Context(), s3.Options{
		Bucket: "cold", Prefix: "p", Endpoint: s.URL, PathStyle: true,
		AccessKeyID: s3test.AccessKey, SecretAccessKey: s3test.SecretKey,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return s, b
}

// Good stores must pass, and nothing be left in them (V2).
func TestFit(t *testing.T) {
	files, err := filesystem.Open(filepath.Join(t.TempDir(), "bucket"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, files.Close()) })
	for _, b := range []objstore.Bucket{memory.New(memory.Options{}), files} {
		v, err := Probe(t.Context(), b)
		require.NoError(t, err)
		require.Equal(t, Verdict{Conditions: true, Races: true, Ranges: true, Lists: true}, v)
		require.NoError(t, b.List(t.Context(), "", func(i objstore.Info) bool {
			t.Errorf("left behind: %s", i.Key)
			return true
		}))
	}
	s, b := remote(t, s3test.Options{})
	v, err := Probe(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, Verdict{true, true, true, true, true}, v)
	require.Empty(t, s.Keys("cold"))
	require.Less(t, len(s.Requests()), 100)
	for _, step := range v.Steps() {
		require.True(t, step.Kept, step.Name)
	}
	require.Len(t, v.Steps(), 5)
	_, b = remote(t, s3test.Options{IgnoreChecksums: true})
	v, err = Probe(t.Context(), b)
	require.NoError(t, err, "checksums are wished for, not needed")
	require.Equal(t, Verdict{true, true, true, true, false}, v)
}

// A store that ignores conditions, checks before it writes, or ignores ranges must be refused with
// the reason, and left as it was found.
func TestUnfit(t *testing.T) {
	var arrived atomic.Int64
	second := make(chan struct{})
	late := func(r s3test.Request) { // lets the first two writers of a race meet
		if !bytes.Contains(r.Body, []byte(" writer ")) {
			return
		}
		switch arrived.Add(1) {
		case 1:
			<-second
		case 2:
			close(second)
		}
	}
	for reason, opts := range map[string]s3test.Options{
		"conditional writes are ignored": {IgnoreConditions: true},
		"at the same moment won":         {Gap: late},
	} {
		s, b := remote(t, opts)
		_, err := Probe(t.Context(), b)
		require.ErrorIs(t, err, ErrUnfit)
		require.ErrorContains(t, err, reason)
		require.Empty(t, s.Keys("cold"))
	}
	_, b := remote(t, s3test.Options{IgnoreRanges: true})
	_, err := Probe(t.Context(), b)
	require.ErrorIs(t, err, objstore.ErrRefused)
	require.ErrorContains(t, err, "ignores ranges")
}

// A store that does not answer must not be called unfit: the operator would change what is fine
// (V1). One that fails now and then must pass.
func TestUnavailable(t *testing.T) {
	inner := memory.New(memory.Options{})
	down := faulty.New(inner, rand.New(rand.NewPCG(1, 1)), faulty.Options{FailBefore: 1})
	_, err := Probe(t.Context(), down)
	require.ErrorIs(t, err, delay.ErrUnavailable)
	require.NotErrorIs(t, err, ErrUnfit)
	passed := 0
	for seed := range uint64(200) {
		shaky := faulty.New(inner, rand.New(rand.NewPCG(seed, 1)), faulty.Options{
			FailBefore: 0.004, FailAfter: 0.004, Throttle: 0.004})
		v, err := Probe(t.Context(), shaky)
		require.NotErrorIs(t, err, ErrUnfit, "seed %d: a lost answer was taken for a broken promise",
			seed)
		if err == nil {
			passed++
			require.True(t, v.Conditions && v.Races && v.Ranges && v.Lists)
		}
	}
	require.Greater(t, passed, 150)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("shutting down")
	cancel(cause)
	_, err = Probe(ctx, inner)
	require.ErrorIs(t, err, cause)
}

// Wrong credentials must be told as such at once.
func TestRefused(t *testing.T) {
	s, b := remote(t, s3test.Options{Before: func(w http.ResponseWriter, _ s3test.Request) bool {
		s3test.Fail(w, http.StatusForbidden, "SignatureDoesNotMatch", "")
		return true
	}})
	_, err := Probe(t.Context(), b)
	require.ErrorIs(t, err, objstore.ErrRefused)
	require.ErrorContains(t, err, "SignatureDoesNotMatch")
	require.LessOrEqual(t, len(s.Requests()), 2)
}

// The stores that are sold as S3, by their weaknesses: each is accepted or refused with the reason,
// before anything of the cluster is written there.
func TestPersonalities(t *testing.T) {
	refuse := func(status int, code string, when func(r s3test.Request) bool) s3test.Options {
		return s3test.Options{Before: func(w http.ResponseWriter, r s3test.Request) bool {
			if !when(r) {
				return false
			}
			s3test.Fail(w, status, code, "")
			return true
		}}
	}
	without := func(header string) s3test.Options {
		return s3test.Options{Strip: []string{header}}
	}
	for _, c := range []struct {
		name   string
		opts   s3test.Options
		is     error // nil: accepted
		reason string
	}{
		{"as AWS", s3test.Options{}, nil, ""},
		{"compares no checksums", s3test.Options{IgnoreChecksums: true}, nil, ""},
		{"ignores all conditions", s3test.Options{IgnoreConditions: true}, ErrUnfit,
			"a create overwrote an object: conditional writes are ignored"},
		{"ignores If-None-Match", without("If-None-Match"), ErrUnfit,
			"a create overwrote an object: conditional writes are ignored"},
		{"ignores If-Match", without("If-Match"), ErrUnfit,
			"a replace with an old tag was done: conditional writes are ignored"},
		{"knows no conditions", refuse(http.StatusNotImplemented, "NotImplemented",
			func(r s3test.Request) bool {
				return r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Match") != ""
			}), objstore.ErrRefused, "probe conditions: put probe/"},
		{"rejects checksum headers", refuse(http.StatusBadRequest, "InvalidArgument",
			func(r s3test.Request) bool { return r.Header.Get("X-Amz-Checksum-Crc32c") != "" }),
			objstore.ErrRefused, "InvalidArgument"},
		{"ignores ranges", s3test.Options{IgnoreRanges: true}, objstore.ErrRefused, "ignores ranges"},
		{"knows no lists", refuse(http.StatusNotImplemented, "NotImplemented",
			func(r s3test.Request) bool { return r.Query.Has("list-type") }),
			objstore.ErrRefused, "probe lists"},
		{"lists late", s3test.Options{EmptyLists: true}, ErrUnfit, "a list does not show"},
		{"takes no deletes", refuse(http.StatusForbidden, "AccessDenied",
			func(r s3test.Request) bool {
				return r.Query.Has("delete") || r.Method == http.MethodDelete
			}), objstore.ErrRefused, "AccessDenied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, b := remote(t, c.opts)
			v, err := Probe(t.Context(), b)
			if c.is == nil {
				require.NoError(t, err)
				require.True(t, v.Conditions && v.Races && v.Ranges && v.Lists)
				return
			}
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.reason)
			require.NotErrorIs(t, err, delay.ErrUnavailable)
		})
	}
}
