// SPDX-License-Identifier: Apache-2.0

// Package realtest opens buckets in a real S3 store for the tests that ask for one. The module
// integration/ starts such stores and runs those tests, named TestRealStore; by hand:
//
//	integration/scripts/minio.sh serve /tmp/minio &
//	CICADA_TEST_S3=http://cicada:cicada-secret@127.0.0.1:9000 go test -run RealStore ./tiered/...
//
// Without the variable they are skipped.
package realtest

import (
	"crypto/rand"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/tiered/objstore/s3"
)

// Variable names the store: http://key:secret@host:port.
const Variable = "CICADA_TEST_S3"

// bucket is made when it is missing. The prefixes keep tests apart.
const bucket = "cicada-test"

// Open opens an empty bucket in the store, or skips the test when none is named.
func Open(t testing.TB) *s3.Bucket {
	t.Helper()
	store := os.Getenv(Variable)
	if store == "" {
		t.Skip("no S3 store; see " + Variable)
	}
	u, err := url.Parse(store)
	require.NoError(t, err, Variable)
	secret, _ := u.User.Password()
	b, err := s3.Open(t.Context(), s3.Options{
		Bucket: bucket, Prefix: strings.ToLower(rand.Text()), PathStyle: true, CreateBucket: true,
		Endpoint:    u.Scheme + "://" + u.Host,
		AccessKeyID: u.User.Username(), SecretAccessKey: secret,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}
