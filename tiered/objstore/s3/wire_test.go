// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/s3/s3test"
)

// A condition lost on the way is two owners; a checksum that trails is stored inside the object by
// some servers; a multipart upload loses the condition on AWS. 20 MiB is above the client's own
// threshold for multipart (U3).
func TestPutOnTheWire(t *testing.T) {
	s, b := serve(t, s3test.Options{}, nil)
	big := bytes.Repeat([]byte("0123456789abcdef"), 20<<16)
	_, err := b.Put(t.Context(), "v1/a", []byte("123456789"), objstore.Condition{Absent: true})
	require.NoError(t, err)
	tag, err := b.Put(t.Context(), "v1/big", big, objstore.Condition{Absent: true})
	require.NoError(t, err)
	_, err = b.Put(t.Context(), "v1/big", big[1:], objstore.Condition{ETag: tag})
	require.NoError(t, err)
	_, err = b.Put(t.Context(), "v1/none", nil, objstore.Condition{})
	require.NoError(t, err)
	all := s.Requests()
	require.Len(t, all, 4, "one request for each Put")
	sums := []string{"4waSgw==", "", "", "AAAAAA=="} // the check value of CRC32C, and of nothing
	for i, r := range all {
		require.Equal(t, http.MethodPut, r.Method)
		require.True(t, strings.HasPrefix(r.Path, "/cold/some/Where/v1/"), r.Path)
		require.Empty(t, r.Query)
		require.Equal(t, "UNSIGNED-PAYLOAD", r.Header.Get("X-Amz-Content-Sha256"))
		require.NotEmpty(t, r.Header.Get("X-Amz-Checksum-Crc32c"))
		require.NotContains(t, r.Header, "X-Amz-Sdk-Checksum-Algorithm")
		require.NotContains(t, r.Header, "X-Amz-Trailer")
		require.NotContains(t, r.Header, "Content-Encoding")
		require.Empty(t, r.Trailer)
		if sums[i] != "" {
			require.Equal(t, sums[i], r.Header.Get("X-Amz-Checksum-Crc32c"))
		}
	}
	for i, want := range [][2]string{{"*", ""}, {"*", ""}, {"", `"` + tag + `"`}, {"", ""}} {
		require.Equal(t, want[0], all[i].Header.Get("If-None-Match"), i)
		require.Equal(t, want[1], all[i].Header.Get("If-Match"), i)
	}
	require.True(t, bytes.Equal(big, all[1].Body))
	require.Equal(t, s3test.SessionToken, all[0].Header.Get("X-Amz-Security-Token"))
}

// A range must be asked for as a range, and no more than it be read; what the client asks before
// its first call (where the bucket is) must not be asked.
func TestRangeOnTheWire(t *testing.T) {
	s, b := serve(t, s3test.Options{}, nil)
	_, err := b.Put(t.Context(), "r", []byte("0123456789"), objstore.Condition{})
	require.NoError(t, err)
	for _, r := range [][2]int64{{0, 1}, {3, 4}, {0, 10}} {
		_, err := b.GetRange(t.Context(), "r", r[0], r[1])
		require.NoError(t, err)
	}
	_, err = b.GetRange(t.Context(), "r", 4, 0)
	require.NoError(t, err)
	all := s.Requests()[1:]
	require.Len(t, all, 4)
	for i, want := range []string{"bytes=0-0", "bytes=3-6", "bytes=0-9"} {
		require.Equal(t, http.MethodGet, all[i].Method)
		require.Equal(t, want, all[i].Header.Get("Range"))
		require.NotContains(t, all[i].Header, "Accept-Encoding")
	}
	require.Equal(t, http.MethodHead, all[3].Method)
}

// Bodies that are short, long, or of another range must be errors and never data (O3). None of
// them is a certain answer, but that of a store that ignores ranges.
func TestWrongBodies(t *testing.T) {
	var how atomic.Pointer[string]
	b := answering(t, func(w http.ResponseWriter, _ s3test.Request) bool {
		h := w.Header()
		h.Set("Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT")
		h.Set("ETag", `"x"`)
		switch *how.Load() {
		case "short":
			h.Set("Content-Length", "10")
			h.Set("Content-Range", "bytes 0-9/10")
			_, _ = io.WriteString(w, "01234")
		case "no length":
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "0123456789")
		case "fewer":
			h.Set("Content-Range", "bytes 0-4/*")
			_, _ = io.WriteString(w, "01234")
		case "another":
			h.Set("Content-Range", "bytes 5-14/20")
			_, _ = io.WriteString(w, "0123456789")
		case "longer":
			h.Set("Content-Range", "bytes 0-9/20")
			_, _ = io.WriteString(w, "0123456789abc")
		case "huge":
			h.Set("Content-Length", "999999999999999")
		case "whole":
			_, _ = io.WriteString(w, "0123456789")
		}
		return true
	})
	for _, way := range []string{"short", "fewer", "another", "longer", "whole"} {
		how.Store(&way)
		got, err := b.GetRange(t.Context(), "k", 0, 10)
		require.Error(t, err, way)
		require.Nil(t, got)
		require.Equal(t, way == "whole", isCertain(err), way)
	}
	for _, way := range []string{"short", "no length", "huge"} {
		how.Store(&way)
		got, _, err := b.Get(t.Context(), "k")
		require.Error(t, err, way)
		require.Nil(t, got)
	}
}

// answering is a bucket in a store that answers what handle says.
func answering(
	t *testing.T, handle func(w http.ResponseWriter, r s3test.Request) bool,
) *Bucket {
	t.Helper()
	_, b := serve(t, s3test.Options{Before: handle}, nil)
	return b
}

func isCertain(err error) bool { return sentinelIn(err) != nil }

func sentinelIn(err error) error {
	for _, s := range []error{objstore.ErrNotFound, objstore.ErrPrecondition,
		objstore.ErrThrottled, objstore.ErrSkewed, objstore.ErrRefused} {
		if errors.Is(err, s) {
			return s
		}
	}
	return nil
}

// Every answer must become the right kind of error, and no call may be repeated by the client: a
// repeated conditional write refuses itself (U1, U4).
func TestAnswers(t *testing.T) {
	type answer struct {
		status int
		code   string
	}
	for _, c := range []struct {
		answer
		wants
	}{
		{answer{404, "NoSuchKey"}, wants{objstore.ErrNotFound, nil, nil, objstore.ErrPrecondition}},
		{answer{404, ""}, wants{objstore.ErrNotFound, nil, nil, objstore.ErrPrecondition}},
		{answer{404, "NoSuchBucket"}, same(objstore.ErrRefused)},
		{answer{412, "PreconditionFailed"}, same(objstore.ErrPrecondition)},
		{answer{409, "ConditionalRequestConflict"}, same(objstore.ErrThrottled)},
		{answer{503, "SlowDown"}, same(objstore.ErrThrottled)},
		{answer{429, ""}, same(objstore.ErrThrottled)},
		{answer{503, ""}, wants{objstore.ErrThrottled, nil, nil, nil}},
		{answer{503, "SlowDownWrite"}, wants{objstore.ErrThrottled, nil, nil, nil}},
		{answer{403, "AccessDenied"}, same(objstore.ErrRefused)},
		{answer{403, "RequestTimeTooSkewed"}, same(objstore.ErrSkewed)},
		{answer{403, ""}, same(objstore.ErrRefused)},
		{answer{400, "XAmzContentChecksumMismatch"}, same(objstore.ErrRefused)},
		{answer{400, "EntityTooLarge"}, same(objstore.ErrRefused)},
		{answer{301, "PermanentRedirect"}, same(objstore.ErrRefused)},
		{answer{501, "NotImplemented"}, same(objstore.ErrRefused)},
		{answer{400, "RequestTimeout"}, same(nil)},
		{answer{400, "IncompleteBody"}, same(nil)},
		{answer{500, "InternalError"}, same(nil)},
		{answer{502, ""}, same(nil)},
		{answer{504, ""}, same(nil)},
	} {
		t.Run(fmt.Sprint(c.status, c.code), func(t *testing.T) {
			t.Parallel() // after some answers the client waits up to 200 ms before it gives up
			var requests atomic.Int64
			b := answering(t, func(w http.ResponseWriter, _ s3test.Request) bool {
				requests.Add(1)
				if c.code == "" {
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, "<html>a proxy</html>")
				} else {
					s3test.Fail(w, c.status, c.code, "no")
				}
				return true
			})
			_, _, get := b.Get(t.Context(), "k")
			_, put := b.Put(t.Context(), "k", []byte("x"), objstore.Condition{})
			_, create := b.Put(t.Context(), "k", nil, objstore.Condition{Absent: true})
			_, replace := b.Put(t.Context(), "k", []byte("x"), objstore.Condition{ETag: "t"})
			for i, err := range []error{get, put, create, replace} {
				require.Error(t, err)
				require.Equal(t, c.wants[i], sentinelIn(err), "call %d: %v", i, err)
			}
			require.EqualValues(t, 4, requests.Load(), "the client repeated a call")
		})
	}
}

// wants are the sentinels of a Get and of a Put that is unconditional, creates, and replaces.
type wants [4]error

func same(err error) wants { return wants{err, err, err, err} }

// A connection that breaks after the write was made must be an unknown outcome, with one request
// only: a second one would find the first one's object and call it a lost race (U1, U4).
func TestLostAnswer(t *testing.T) {
	s, b := serve(t, s3test.Options{After: func(_ http.ResponseWriter, r s3test.Request) bool {
		if r.Method == http.MethodPut {
			panic(http.ErrAbortHandler)
		}
		return false
	}}, nil)
	_, err := b.Put(t.Context(), "k", []byte("mine"), objstore.Condition{Absent: true})
	require.Error(t, err)
	require.False(t, isCertain(err), "%v", err)
	require.Len(t, s.Requests(), 1)
	got, _, err := b.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "mine", string(got))
}

// hoarder is a transport that answers at once and holds on to the body, as the real one does when
// the store answers before it has read everything.
type hoarder struct{ body io.Reader }

func (h *hoarder) RoundTrip(req *http.Request) (*http.Response, error) {
	_, err := io.ReadFull(req.Body, make([]byte, 4))
	h.body = req.Body
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Etag": {`"x"`}}, Body: http.NoBody,
	}, nil
}

// Nobody may read the body once Put has returned, whatever the outcome: the next flush is written
// there (U2). A request that hangs must end with its ctx.
func TestBodyIsNotReadAfterPut(t *testing.T) {
	_, b := serve(t, s3test.Options{}, nil)
	h := new(hoarder)
	b.clock.inner = h
	_, err := b.Put(t.Context(), "k", []byte("0123456789"), objstore.Condition{})
	require.NoError(t, err)
	n, err := h.body.Read(make([]byte, 10))
	require.Zero(t, n)
	require.ErrorIs(t, err, errCutOff)
	hang := make(chan struct{})
	b = answering(t, func(http.ResponseWriter, s3test.Request) bool {
		<-hang
		return true
	})
	t.Cleanup(func() { close(hang) })
	body := make([]byte, 32<<20) // more than sockets hold
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err = b.Put(ctx, "k", body, objstore.Condition{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	clear(body)
}

// Stores and proxies repeat what they were sent in their errors. None of it may reach a log, and
// neither may what prints a bucket (U5).
func TestSecretsAreNotTold(t *testing.T) {
	var plain atomic.Bool
	b := answering(t, func(w http.ResponseWriter, r s3test.Request) bool {
		told := s3test.SecretKey + r.Header.Get("X-Amz-Security-Token")
		if plain.Load() {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, told)
		} else {
			w.Header().Set("X-Amz-Request-Id", s3test.SessionToken)
			s3test.Fail(w, http.StatusForbidden, s3test.SessionToken, told)
		}
		return true
	})
	for range 2 {
		_, put := b.Put(t.Context(), "k", []byte("x"), objstore.Condition{})
		_, _, get := b.Get(t.Context(), "k")
		list := b.List(t.Context(), "", func(objstore.Info) bool { return true })
		for _, err := range []error{put, get, list, b.Delete(t.Context(), "k")} {
			require.Error(t, err)
			hides(t, err.Error())
		}
		plain.Store(true)
	}
	opts := Options{Bucket: "cold", AccessKeyID: "A", SecretAccessKey: s3test.SecretKey,
		SessionToken: s3test.SessionToken}
	for _, v := range []any{opts, &opts, b} {
		hides(t, fmt.Sprintf("%v %+v %#v %s", v, v, v, v))
	}
	leak := fmt.Errorf("dial: %s", s3test.SecretKey)
	hides(t, b.fault("get", "k", reads, leak).Error())
}

func hides(t *testing.T, text string) {
	t.Helper()
	require.NotContains(t, text, s3test.SecretKey)
	require.NotContains(t, text, s3test.SessionToken)
	require.NotContains(t, text, "top")
}

// A list that is cut by its ctx ends in silence in the client, and a part of a list looks like
// objects that are gone: the sweep and the restore would believe it.
func TestCutList(t *testing.T) {
	_, b := serve(t, s3test.Options{}, nil)
	b.page = 2
	for i := range 5 {
		_, err := b.Put(t.Context(), fmt.Sprintf("l/%d", i), nil, objstore.Condition{})
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := b.List(ctx, "", func(i objstore.Info) bool {
		if i.Key == "l/1" { // the last one of a page
			cancel()
		}
		return true
	})
	require.ErrorIs(t, err, context.Canceled)
}

// Objects of others beside the prefix must not be seen, those below it with impossible names be
// passed over, and a list that is out of order be refused: collectors walk two lists in step.
func TestForeignNames(t *testing.T) {
	s, b := serve(t, s3test.Options{}, func(o *Options) { o.Prefix = "p" })
	for _, key := range []string{"p/a", "p/folder/", "p/ B", "pa", "q/a", "p/z"} {
		_, err := b.core.Client.PutObject(t.Context(), "cold", key, strings.NewReader(""), 0,
			minio.PutObjectOptions{})
		require.NoError(t, err)
	}
	require.Len(t, s.Keys("cold"), 6)
	var keys []string
	require.NoError(t, b.List(t.Context(), "", func(i objstore.Info) bool {
		keys = append(keys, i.Key)
		return true
	}))
	require.Equal(t, []string{"a", "z"}, keys)
	b = answering(t, func(w http.ResponseWriter, _ s3test.Request) bool {
		_, _ = io.WriteString(w, `<ListBucketResult><Contents><Key>some/Where/b</Key>`+
			`</Contents><Contents><Key>some/Where/a</Key></Contents></ListBucketResult>`)
		return true
	})
	err := b.List(t.Context(), "", func(objstore.Info) bool { return true })
	require.ErrorContains(t, err, "not in order")
}

// 1,000 keys must be one request; a key that the store does not confirm is not deleted, and the
// client keeps quiet about some of those.
func TestDeleteOnTheWire(t *testing.T) {
	s, b := serve(t, s3test.Options{}, nil)
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("d/%04d", i)
	}
	require.NoError(t, b.Delete(t.Context(), keys...))
	all := s.Requests()
	require.Len(t, all, 1)
	require.Equal(t, http.MethodPost, all[0].Method)
	require.NotEmpty(t, all[0].Header.Get("Content-Md5"))
	for said, want := range map[string]error{
		`<Error><Key>some/Where/k</Key><Code>AccessDenied</Code></Error>`:    objstore.ErrRefused,
		`<Error><Key>some/Where/k</Key><Code>SlowDown</Code></Error>`:        objstore.ErrThrottled,
		`<Error><Key>some/Where/k</Key><Code>InvalidArgument</Code></Error>`: nil,
		`<Error><Key>some/Where/k</Key><Code>InternalError</Code></Error>`:   nil,
		``: nil,
	} {
		b := answering(t, func(w http.ResponseWriter, _ s3test.Request) bool {
			_, _ = io.WriteString(w, "<DeleteResult>"+said+"</DeleteResult>")
			return true
		})
		err := b.Delete(t.Context(), "k")
		require.Error(t, err, said)
		require.Equal(t, want, sentinelIn(err), "%v", err)
	}
}

// The clock must be the store's and not the one of a cache on the way.
func TestClock(t *testing.T) {
	var date, age atomic.Pointer[string]
	none, first, second := "", "Sat, 21 Nov 2026 10:00:00 GMT", "Sat, 21 Nov 2026 11:00:00 GMT"
	date.Store(&none)
	age.Store(&none)
	s := s3test.New(s3test.Options{Before: func(w http.ResponseWriter, _ s3test.Request) bool {
		w.Header()["Date"] = nil
		if d := *date.Load(); d != "" {
			w.Header().Set("Date", d)
		}
		if a := *age.Load(); a != "" {
			w.Header().Set("Age", a)
		}
		s3test.Fail(w, http.StatusForbidden, "AccessDenied", "")
		return true
	}})
	t.Cleanup(s.Close)
	local := time.Unix(1_800_000_000, 0)
	opts := optionsOf(s)
	opts.Now = func() time.Time { return local }
	b, err := Open(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	ask := func() { require.Error(t, b.Delete(t.Context(), "k")) }
	ask()
	_, _, ok := b.RemoteTime()
	require.False(t, ok, "no Date, no time")
	date.Store(&first)
	ask()
	remote, at, ok := b.RemoteTime()
	require.True(t, ok)
	require.Equal(t, time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC), remote)
	require.Equal(t, local, at)
	date.Store(&second)
	cached := "60"
	age.Store(&cached)
	ask()
	remote, _, _ = b.RemoteTime()
	require.Equal(t, 10, remote.Hour(), "a cache's Date was believed")
}

// What is taken for proved is not read back: a store that repeats a checksum without comparing it,
// or says nothing, must not be believed, and one that has another checksum has not stored the body.
func TestProved(t *testing.T) {
	var echo atomic.Pointer[string]
	changed := func(w http.ResponseWriter, r s3test.Request) bool {
		e := echo.Load()
		if e == nil || r.Method != http.MethodPut {
			return false
		}
		w.Header().Set("ETag", `"x"`)
		if *e != "" {
			w.Header().Set("X-Amz-Checksum-Crc32c", *e)
		}
		return true
	}
	_, b := serve(t, s3test.Options{After: changed}, nil)
	proved, err := b.PutProved(t.Context(), "k", []byte("123456789"))
	require.NoError(t, err)
	require.False(t, proved, "it was never seen to compare")
	require.ErrorIs(t, b.PutCorrupt(t.Context(), "k", []byte("x")), objstore.ErrRefused)
	proved, err = b.PutProved(t.Context(), "k", []byte("123456789"))
	require.NoError(t, err)
	require.True(t, proved)
	silent, wrong := "", "AAAAAA=="
	echo.Store(&silent)
	proved, err = b.PutProved(t.Context(), "k", []byte("123456789"))
	require.NoError(t, err)
	require.False(t, proved)
	echo.Store(&wrong)
	_, err = b.PutProved(t.Context(), "k", []byte("123456789"))
	require.ErrorContains(t, err, "another checksum")
	require.False(t, isCertain(err))

	_, b = serve(t, s3test.Options{IgnoreChecksums: true}, nil)
	require.NoError(t, b.PutCorrupt(t.Context(), "k", []byte("x")))
	proved, err = b.PutProved(t.Context(), "k", []byte("123456789"))
	require.NoError(t, err)
	require.False(t, proved)
}

// recorder is a transport that keeps the requests and answers none.
type recorder struct{ urls, auth []string }

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.urls = append(r.urls, req.URL.Host+req.URL.Path)
	r.auth = append(r.auth, req.Header.Get("Authorization"))
	return nil, errors.New("no route")
}

// The bucket must be in the path where that is asked for, and the region be signed and not asked
// for: stores of one's own have no names for buckets, and a request more before each first one.
func TestWhereRequestsGo(t *testing.T) {
	for _, c := range []struct {
		opts        Options
		url, region string
	}{
		{Options{PathStyle: true}, "s3.dualstack.us-east-1.amazonaws.com/cold/p/k", "us-east-1"},
		{Options{Region: "eu-central-1"}, "cold.s3.dualstack.eu-central-1.amazonaws.com/p/k",
			"eu-central-1"},
		{Options{PathStyle: true, Endpoint: "https://store.example:9000", Region: "mars"},
			"store.example:9000/cold/p/k", "mars"},
	} {
		c.opts.Bucket, c.opts.Prefix = "cold", "p"
		c.opts.AccessKeyID, c.opts.SecretAccessKey = s3test.AccessKey, s3test.SecretKey
		b, err := Open(t.Context(), c.opts)
		require.NoError(t, err)
		r := new(recorder)
		b.clock.inner = r
		_, err = b.Put(t.Context(), "k", []byte("x"), objstore.Condition{})
		require.Error(t, err)
		require.Equal(t, []string{c.url}, r.urls, "one request, and none to find the bucket")
		require.Contains(t, r.auth[0], "/"+c.region+"/s3/aws4_request")
	}
}

// A missing bucket must be made when asked for and only then; what cannot be right must be refused
// before anything is sent.
func TestOpen(t *testing.T) {
	s := s3test.New(s3test.Options{})
	t.Cleanup(s.Close)
	for _, create := range []bool{false, true, true} {
		opts := optionsOf(s)
		opts.CreateBucket, opts.Region = create, "eu-central-1"
		b, err := Open(t.Context(), opts)
		require.NoError(t, err)
		_, err = b.Put(t.Context(), "k", []byte("x"), objstore.Condition{})
		if create {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, objstore.ErrRefused)
			require.ErrorContains(t, err, "NoSuchBucket")
			_, _, err = b.Get(t.Context(), "k")
			require.ErrorIs(t, err, objstore.ErrRefused, "a misspelt bucket is not an empty one")
		}
		require.NoError(t, b.Close())
	}
	before := len(s.Requests())
	for _, change := range []func(*Options){
		func(o *Options) { o.AccessKeyID = "" },
		func(o *Options) { o.SecretAccessKey = "" },
		func(o *Options) { o.Prefix = "a//b" },
		func(o *Options) { o.Prefix = "../a" },
		func(o *Options) { o.Prefix = strings.Repeat("a", maxPrefix+1) },
		func(o *Options) { o.Endpoint = "localhost" },
		func(o *Options) { o.Endpoint = "http://u:p@localhost" },
	} {
		opts := optionsOf(s)
		change(&opts)
		_, err := Open(t.Context(), opts)
		require.ErrorIs(t, err, objstore.ErrRefused)
		hides(t, err.Error())
	}
	require.Len(t, s.Requests(), before)
}

// FuzzContentRange reads what a store may say. It must not panic, and what it takes must be a
// range.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 5-9/*", "bytes */10", "bytes 9-5/10", "",
		"bytes -1-5/10", "bytes 0-9999999999999999999/1", "bytes 0-10/10", "bytes=0-1/2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, ok := parseContentRange(s)
		if ok {
			require.GreaterOrEqual(t, first, int64(0))
			require.LessOrEqual(t, first, last)
			require.True(t, total == -1 || last < total)
		}
	})
}
