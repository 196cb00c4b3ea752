// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/objstoretest"
	"github.com/cicadamq/cicada/tiered/objstore/s3/s3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func optionsOf(s *s3test.Server) Options {
	return Options{
		Bucket: "cold", Prefix: "some/Where", Endpoint: s.URL, PathStyle: true,
		AccessKeyID: s3test.AccessKey, SecretAccessKey: s3test.SecretKey,
		SessionToken: s3test.SessionToken,
	}
}

// serve starts a server and opens a bucket in it; change may alter how it is opened.
func serve(t *testing.T, opts s3test.Options, change func(*Options)) (*s3test.Server, *Bucket) {
	t.Helper()
	opts.Bucket = "cold"
	s := s3test.New(opts)
	t.Cleanup(s.Close)
	o := optionsOf(s)
	if change != nil {
		change(&o)
	}
	b, err := Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return s, b
}

// Everything that the other buckets do must be true across the wire, too, with pages small enough
// that a list takes several.
func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket {
		_, b := serve(t, s3test.Options{}, nil)
		b.page = 3
		return b
	})
}
