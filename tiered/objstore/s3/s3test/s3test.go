// SPDX-License-Identifier: Apache-2.0

// Package s3test is a small S3 server for tests: the operations that package s3 uses, in memory,
// with conditions that are checked and applied in one step. It records every request, and can be
// told to fail, or to be as careless as some stores are.
//
// It looks at the access key but verifies no signature.
package s3test

import (
	"cmp"
	"crypto/md5" //nolint:gosec // the tag of an object in S3 is its MD5
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The credentials that the server accepts.
const (
	AccessKey    = "AKIDTEST"
	SecretKey    = "top/secret+key"
	SessionToken = "session/token+top/secret"
)

// bodyLimit bounds what one request may send, in bytes.
const bodyLimit = 64 << 20

// Request is one request as it came.
type Request struct {
	Method  string
	Path    string // escaped, as sent
	Query   url.Values
	Header  http.Header
	Trailer http.Header
	Body    []byte
}

// Options say how careful the server is. The zero value does all that S3 does.
type Options struct {
	Bucket           string // exists from the start, unless it is ""
	IgnoreConditions bool   // as some gateways do
	IgnoreChecksums  bool
	IgnoreRanges     bool
	EmptyLists       bool     // nothing is listed, as while a store catches up
	Strip            []string // headers of requests that are ignored
	// Gap, if set, runs between the check of a condition and the write, as in a store that does
	// not do both in one step.
	Gap func(r Request)
	// Before, if set, sees every request first. When it returns true it has answered.
	Before func(w http.ResponseWriter, r Request) bool
	// After, if set, runs when the request has had its effect. When it returns true it has
	// answered.
	After func(w http.ResponseWriter, r Request) bool
	Now   func() time.Time // stamps objects; the default is the system clock
}

// Server is an S3 server on a port of the loopback interface.
type Server struct {
	URL  string
	opts Options
	http *httptest.Server

	mu       sync.Mutex
	buckets  map[string]map[string]object
	requests []Request
}

type object struct {
	body     []byte
	etag     string
	modified time.Time
}

// New starts a server; Close ends it.
func New(opts Options) *Server {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Server{opts: opts, buckets: make(map[string]map[string]object)}
	if opts.Bucket != "" {
		s.buckets[opts.Bucket] = make(map[string]object)
	}
	s.http = httptest.NewServer(s)
	s.URL = s.http.URL
	return s
}

// Close ends the server and its connections.
func (s *Server) Close() {
	s.http.CloseClientConnections()
	s.http.Close()
}

// Requests are the requests so far, in the order of their arrival.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Keys are the names of what bucket holds, in order.
func (s *Server) Keys(bucket string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.buckets[bucket]))
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	req := Request{
		Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.Query(),
		Header: r.Header.Clone(), Trailer: r.Trailer.Clone(), Body: body,
	}
	s.mu.Lock()
	s.requests = append(s.requests, req)
	s.mu.Unlock()
	if s.opts.Before != nil && s.opts.Before(w, req) {
		return
	}
	for _, h := range s.opts.Strip {
		req.Header.Del(h)
	}
	auth := r.Header.Get("Authorization")
	if err != nil {
		Fail(w, http.StatusBadRequest, "IncompleteBody", "")
		return
	}
	if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential="+AccessKey+"/") {
		Fail(w, http.StatusForbidden, "InvalidAccessKeyId", "")
		return
	}
	answer := s.serve(r, req)
	if s.opts.After != nil && s.opts.After(w, req) {
		return
	}
	answer(w)
}

// answer writes the response of a request that has had its effect.
type answer func(w http.ResponseWriter)

// Fail answers with an error as S3 does.
func Fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	write(w, struct {
		XMLName   xml.Name `xml:"Error"`
		Code      string
		Message   string
		RequestID string `xml:"RequestId"`
	}{Code: code, Message: message, RequestID: "REQ1"})
}

// write gives up in silence: the client has gone.
func write(w io.Writer, v any) { _ = xml.NewEncoder(w).Encode(v) }

func fail(status int, code string) answer {
	return func(w http.ResponseWriter) { Fail(w, status, code, "") }
}

func done(status int) answer {
	return func(w http.ResponseWriter) { w.WriteHeader(status) }
}

func (s *Server) serve(r *http.Request, req Request) answer {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	s.mu.Lock()
	objects, ok := s.buckets[bucket]
	if !ok && key == "" && r.Method == http.MethodPut {
		s.buckets[bucket] = make(map[string]object)
		defer s.mu.Unlock()
		return done(http.StatusOK)
	}
	s.mu.Unlock()
	switch {
	case !ok:
		return fail(http.StatusNotFound, "NoSuchBucket")
	case key != "" && r.Method == http.MethodPut:
		return s.put(objects, key, req)
	case key != "" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		return s.get(objects, key, req)
	case key == "" && r.Method == http.MethodHead:
		return done(http.StatusOK)
	case key == "" && r.Method == http.MethodPut:
		return fail(http.StatusConflict, "BucketAlreadyOwnedByYou")
	case key == "" && r.Method == http.MethodPost && req.Query.Has("delete"):
		return s.remove(objects, req)
	case key == "" && r.Method == http.MethodGet && req.Query.Get("list-type") == "2":
		return s.list(objects, req)
	default:
		return fail(http.StatusNotImplemented, "NotImplemented")
	}
}

func (s *Server) put(objects map[string]object, key string, req Request) answer {
	sum := binary.BigEndian.AppendUint32(nil,
		crc32.Checksum(req.Body, crc32.MakeTable(crc32.Castagnoli)))
	said := req.Header.Get("X-Amz-Checksum-Crc32c")
	if said != "" && said != base64.StdEncoding.EncodeToString(sum) && !s.opts.IgnoreChecksums {
		return fail(http.StatusBadRequest, "XAmzContentChecksumMismatch")
	}
	hash := md5.Sum(req.Body) //nolint:gosec // as above
	o := object{body: req.Body, etag: hex.EncodeToString(hash[:]), modified: s.opts.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused := s.condition(objects, key, req.Header); refused != nil {
		return refused
	}
	if s.opts.Gap != nil {
		s.mu.Unlock()
		s.opts.Gap(req)
		s.mu.Lock()
	}
	objects[key] = o
	return func(w http.ResponseWriter) {
		w.Header().Set("ETag", strconv.Quote(o.etag))
		if said != "" { // careless stores repeat it, too
			w.Header().Set("X-Amz-Checksum-Crc32c", said)
		}
		w.WriteHeader(http.StatusOK)
	}
}

// condition is the answer when a condition of h does not hold, else nil.
func (s *Server) condition(objects map[string]object, key string, h http.Header) answer {
	if s.opts.IgnoreConditions {
		return nil
	}
	old, ok := objects[key]
	if h.Get("If-None-Match") == "*" && ok {
		return fail(http.StatusPreconditionFailed, "PreconditionFailed")
	}
	if want := h.Get("If-Match"); want != "" {
		if !ok {
			return fail(http.StatusNotFound, "NoSuchKey")
		}
		if want != strconv.Quote(old.etag) {
			return fail(http.StatusPreconditionFailed, "PreconditionFailed")
		}
	}
	return nil
}

func (s *Server) get(objects map[string]object, key string, req Request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := objects[key]
	if !ok {
		return fail(http.StatusNotFound, "NoSuchKey")
	}
	status, body, span := http.StatusOK, o.body, ""
	var first, last int64
	_, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-%d", &first, &last)
	if err == nil && !s.opts.IgnoreRanges {
		size := int64(len(o.body))
		if first >= size {
			return fail(http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
		}
		last = min(last, size-1)
		status, body = http.StatusPartialContent, o.body[first:last+1]
		span = fmt.Sprintf("bytes %d-%d/%d", first, last, size)
	}
	return func(w http.ResponseWriter) {
		h := w.Header()
		h.Set("ETag", strconv.Quote(o.etag))
		h.Set("Last-Modified", o.modified.UTC().Format(http.TimeFormat))
		h.Set("Content-Length", strconv.Itoa(len(body)))
		if span != "" {
			h.Set("Content-Range", span)
		}
		w.WriteHeader(status)
		if req.Method != http.MethodHead {
			_, _ = w.Write(body) // the client may have gone
		}
	}
}

func (s *Server) remove(objects map[string]object, req Request) answer {
	type name struct {
		Key string `xml:"Key"`
	}
	var ask struct {
		Object []name `xml:"Object"`
	}
	if xml.Unmarshal(req.Body, &ask) != nil || len(ask.Object) > 1000 {
		return fail(http.StatusBadRequest, "MalformedXML")
	}
	result := struct {
		XMLName xml.Name `xml:"DeleteResult"`
		Deleted []name
	}{Deleted: ask.Object}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range ask.Object {
		delete(objects, o.Key)
	}
	return func(w http.ResponseWriter) { write(w, result) }
}

// Listed is one object of a list.
type Listed struct {
	Key          string
	LastModified string
	ETag         string
	Size         int
}

// List is the answer to a request for a list.
type List struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	EncodingType          string
	IsTruncated           bool
	NextContinuationToken string
	Contents              []Listed
}

func (s *Server) list(objects map[string]object, req Request) answer {
	most, err := strconv.Atoi(cmp.Or(req.Query.Get("max-keys"), "1000"))
	if err != nil {
		return fail(http.StatusBadRequest, "InvalidArgument")
	}
	result := List{EncodingType: "url"}
	after := req.Query.Get("continuation-token") // the last key of the page before
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		if s.opts.EmptyLists || !strings.HasPrefix(key, req.Query.Get("prefix")) || key <= after {
			continue
		}
		if len(result.Contents) == min(most, 1000) {
			result.IsTruncated, result.NextContinuationToken = true, after
			break
		}
		o := objects[key]
		result.Contents = append(result.Contents, Listed{
			Key: url.QueryEscape(key), Size: len(o.body), ETag: strconv.Quote(o.etag),
			LastModified: o.modified.UTC().Format("2006-01-02T15:04:05.000Z"),
		})
		after = key
	}
	return func(w http.ResponseWriter) { write(w, result) }
}
