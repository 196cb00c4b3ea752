// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore/s3"
	"github.com/cicadamq/cicada/tiered/objstore/s3/s3test"
)

// wire is a tier over the S3 client and a server that loses some of its answers after it has done
// what was asked.
type wire struct {
	server *s3test.Server
	bucket *s3.Bucket
	tier   *Tier
	lose   atomic.Pointer[func(r s3test.Request) bool]
	before atomic.Pointer[answerFunc] // answers ahead of the server
	after  atomic.Pointer[answerFunc] // answers when the server has done what was asked
}

type answerFunc = func(w http.ResponseWriter, r s3test.Request) bool

func newWire(t *testing.T) *wire {
	w := &wire{}
	w.server = s3test.New(s3test.Options{Bucket: "cold",
		Before: func(rw http.ResponseWriter, r s3test.Request) bool {
			before := w.before.Load()
			return before != nil && (*before)(rw, r)
		},
		After: func(rw http.ResponseWriter, r s3test.Request) bool {
			if after := w.after.Load(); after != nil && (*after)(rw, r) {
				return true
			}
			if lose := w.lose.Load(); lose != nil && (*lose)(r) {
				panic(http.ErrAbortHandler)
			}
			return false
		}})
	t.Cleanup(w.server.Close)
	var err error
	w.bucket, err = s3.Open(t.Context(), s3.Options{Bucket: "cold", Endpoint: w.server.URL,
		PathStyle: true, AccessKeyID: s3test.AccessKey, SecretAccessKey: s3test.SecretKey})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.bucket.Close()) })
	w.tier, err = Open(t.Context(), w.bucket, Options{RetryBase: time.Millisecond})
	require.NoError(t, err)
	_, err = w.tier.Take(t.Context(), [16]byte{1}, true)
	require.NoError(t, err)
	return w
}

// sent are the requests since the last call, without what is listed or deleted.
func (w *wire) sent(from *int) (all []string) {
	requests := w.server.Requests()
	for _, r := range requests[*from:] {
		name := r.Path[strings.LastIndexByte(r.Path, '/')+1:]
		if name != "manifest" {
			name = "object"
		}
		all = append(all, r.Method+" "+name)
	}
	*from = len(requests)
	return all
}

// The store has written the manifest and its answer is lost: the owner must read back and find its
// own commit. Sending the write again would find the condition broken by itself and call that
// another owner; on the wire there is one conditional PUT and then a GET.
func TestLostAnswerOfACommit(t *testing.T) {
	w := newWire(t)
	from := len(w.server.Requests())
	lost := 0
	lose := func(r s3test.Request) bool {
		if r.Method == http.MethodPut && strings.HasSuffix(r.Path, "/manifest") && lost == 0 {
			lost++
			return true
		}
		return false
	}
	w.lose.Store(&lose)
	s, err := w.tier.Commit(t.Context(), Cut{Rows: rowsOf(0, 10)})
	require.NoError(t, err)
	require.Len(t, s.Segments, 1)
	require.EqualValues(t, 2, s.Version)
	require.Equal(t, []string{"PUT object", "GET object", "PUT manifest", "GET manifest"},
		w.sent(&from))
	require.NoError(t, w.tier.Check(t.Context()))
}

// An object whose answer is lost is sent again under the same name, and is there once.
func TestLostAnswerOfAnUpload(t *testing.T) {
	w := newWire(t)
	from := len(w.server.Requests())
	lost := 0
	lose := func(r s3test.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.Path, "/l0/") && lost < 2 {
			lost++
			return true
		}
		return false
	}
	w.lose.Store(&lose)
	s, err := w.tier.Commit(t.Context(), Cut{Rows: rowsOf(0, 10)})
	require.NoError(t, err)
	require.Len(t, s.Segments, 1)
	require.Equal(t, []string{"PUT object", "PUT object", "PUT object", "GET object",
		"PUT manifest"}, w.sent(&from))
	require.Len(t, w.server.Keys("cold"), 3, "format, manifest and one segment")
}

// A store that proves what it has stored is asked for nothing more: a flush is one request for the
// object and one for the manifest. Every further one is paid for with each flush.
func TestRequestsOfAFlush(t *testing.T) {
	w := newWire(t)
	require.Error(t, w.bucket.PutCorrupt(t.Context(), "probe/x", []byte("x")), "as the probe does")
	from := len(w.server.Requests())
	for i := range 3 {
		_, err := w.tier.Commit(t.Context(), Cut{Rows: rowsOf(i*10, i*10+10),
			Marks: []delay.Mark{markOf(i)}})
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"PUT object", "PUT object", "PUT manifest"}, w.sent(&from))
	}
	report, err := w.tier.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, report.Problems)
}
