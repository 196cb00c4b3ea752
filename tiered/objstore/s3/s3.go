// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/cicadamq/cicada/tiered/objstore"
)

// The defaults of Options, and limits.
const (
	DefaultEndpoint    = "https://s3.amazonaws.com"
	DefaultRegion      = "us-east-1"
	DefaultConnections = 64

	// maxObject bounds what Get makes room for on the word of the store, in bytes.
	maxObject = 1 << 30
	// maxPrefix leaves room for the longest key: stores take names of 1,024 bytes.
	maxPrefix = 256
)

// Options say where the objects are and who asks.
type Options struct {
	Bucket       string
	Prefix       string // without outer slashes; "" is the whole bucket
	Endpoint     string // http://host:port or https://host; "" is DefaultEndpoint
	Region       string // "" is DefaultRegion
	PathStyle    bool   // the bucket in the path, never in the host's name
	CreateBucket bool   // Open makes the bucket when it is missing

	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string // "" is none

	Connections int              // at most so many requests at a time; 0 is DefaultConnections
	Now         func() time.Time // stamps the store's clock; the default is the system clock
}

// String names the place and no secret (U5).
func (o Options) String() string {
	return "s3://" + strings.TrimSuffix(o.Bucket+"/"+o.Prefix, "/")
}

// GoString is String, for %#v.
func (o Options) GoString() string { return o.String() }

// Bucket is an objstore.Bucket and an objstore.Clock in an S3-compatible store.
type Bucket struct {
	core  minio.Core
	name  string
	base  string // begins every key: "" or "prefix/"
	place string
	clock *watch
	// compares is set once the store has refused a body that did not fit its checksum.
	compares atomic.Bool
	idle     func()
	secrets  []string
	page     int // keys of one page of a list; 0 is what the store likes
}

var (
	_ objstore.Bucket = (*Bucket)(nil)
	_ objstore.Clock  = (*Bucket)(nil)
	_ objstore.Prover = (*Bucket)(nil)
)

// Open checks opts. It asks the store nothing, unless opts.CreateBucket. The error is an
// objstore.ErrRefused when opts cannot be right.
func Open(ctx context.Context, opts Options) (*Bucket, error) {
	b, err := newBucket(opts)
	if err != nil {
		return nil, err
	}
	if opts.CreateBucket {
		if err := b.create(ctx, opts.Region); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	return b, nil
}

func newBucket(opts Options) (*Bucket, error) {
	if opts.Endpoint == "" {
		opts.Endpoint = DefaultEndpoint
	}
	if opts.Region == "" {
		opts.Region = DefaultRegion // else the client asks the store for it before every first call
	}
	if opts.Connections <= 0 {
		opts.Connections = DefaultConnections
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	endpoint, err := url.Parse(opts.Endpoint)
	if err != nil || endpoint.Host == "" || endpoint.User != nil {
		return nil, fmt.Errorf("open %s: %w: endpoint: want http://host:port or https://host",
			opts, objstore.ErrRefused)
	}
	if opts.AccessKeyID == "" || opts.SecretAccessKey == "" {
		return nil, fmt.Errorf("open %s: %w: an access key and its secret are needed",
			opts, objstore.ErrRefused)
	}
	base := ""
	if opts.Prefix != "" {
		// Upper case is fine in a prefix; the rest is as strict as keys are.
		err := objstore.CheckKey(strings.ToLower(opts.Prefix))
		if err != nil || len(opts.Prefix) > maxPrefix {
			return nil, fmt.Errorf("open %s: %w: the prefix is longer than %d bytes or not made "+
				"of letters, digits and / . _ -", opts, objstore.ErrRefused, maxPrefix)
		}
		base = opts.Prefix + "/"
	}
	lookup := minio.BucketLookupAuto
	if opts.PathStyle {
		lookup = minio.BucketLookupPath
	}
	transport := newTransport(opts.Connections)
	clock := &watch{inner: transport, now: opts.Now}
	core, err := minio.NewCore(endpoint.Host, &minio.Options{
		Creds: credentials.NewStaticV4(opts.AccessKeyID, opts.SecretAccessKey,
			opts.SessionToken),
		Secure: endpoint.Scheme == "https", Transport: clock, Region: opts.Region,
		BucketLookup: lookup, MaxRetries: 1, // U1
		TrailingHeaders: true, // only permits a checksum in a header: nothing trails (U3)
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w: %w", opts, objstore.ErrRefused, err)
	}
	return &Bucket{
		core: *core, name: opts.Bucket, base: base, place: opts.String(), clock: clock,
		idle: transport.CloseIdleConnections, secrets: []string{opts.SecretAccessKey,
			opts.SessionToken},
	}, nil
}

// create makes the bucket when it is missing.
func (b *Bucket) create(ctx context.Context, region string) error {
	there, err := b.core.BucketExists(ctx, b.name)
	if err != nil {
		return b.fault("look for bucket", b.name, reads, err)
	}
	if there {
		return nil
	}
	err = b.core.MakeBucket(ctx, b.name, minio.MakeBucketOptions{Region: region})
	if answer, ok := errors.AsType[minio.ErrorResponse](err); ok && answer.Code == ownedByYou {
		return nil // another daemon was quicker
	}
	if err != nil {
		return b.fault("create bucket", b.name, writes, err)
	}
	return nil
}

// String names the place and no secret (U5).
func (b *Bucket) String() string { return b.place }

// GoString is String, for %#v.
func (b *Bucket) GoString() string { return b.place }

// Put implements objstore.Bucket (U2, U3).
func (b *Bucket) Put(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (string, error) {
	etag, _, err := b.put(ctx, key, body, cond, crc32.Checksum(body, castagnoli()))
	return etag, err
}

// PutProved implements objstore.Prover. A store that only repeats the checksum proves nothing: it
// must also have refused a wrong one, which package probe finds out.
func (b *Bucket) PutProved(ctx context.Context, key string, body []byte) (bool, error) {
	_, echoed, err := b.put(ctx, key, body, objstore.Condition{},
		crc32.Checksum(body, castagnoli()))
	return echoed && b.compares.Load(), err
}

// PutCorrupt sends body with the checksum of another one, as damage on the way would: ErrRefused
// from a store that compares, nil from one that does not. It is for package probe.
func (b *Bucket) PutCorrupt(ctx context.Context, key string, body []byte) error {
	sum := crc32.Checksum(body, castagnoli())
	_, _, err := b.put(ctx, key, body, objstore.Condition{}, ^sum)
	if errors.Is(err, objstore.ErrRefused) {
		b.compares.Store(true)
	}
	return err
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// put makes one request. echoed says that the answer repeats the checksum.
func (b *Bucket) put(
	ctx context.Context, key string, body []byte, cond objstore.Condition, sum uint32,
) (etag string, echoed bool, err error) {
	if err := check(ctx, "put", key); err != nil {
		return "", false, err
	}
	text := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
	does, opts := writes, minio.PutObjectOptions{
		DisableMultipart: true, DisableContentSha256: true,
		UserMetadata: map[string]string{"x-amz-checksum-crc32c": text},
	}
	switch {
	case cond.Absent && cond.ETag != "":
		return "", false, fmt.Errorf("put %s: %w: no object is absent and has a tag", key,
			objstore.ErrPrecondition)
	case cond.Absent:
		does = creates
		opts.SetMatchETagExcept("*")
	case cond.ETag != "":
		does = changes
		opts.SetMatchETag(cond.ETag)
	}
	l := newLoan(body)
	defer l.cut()
	info, err := b.core.Client.PutObject(ctx, b.name, b.base+key, l, int64(len(body)), opts)
	switch {
	case err != nil:
		return "", false, b.fault("put", key, does, err)
	case info.ETag == "":
		return "", false, fmt.Errorf("put %s: s3: the store gave no tag", key)
	case info.ChecksumCRC32C != "" && info.ChecksumCRC32C != text:
		return "", false, fmt.Errorf("put %s: s3: the store has another checksum than was sent", key)
	}
	return info.ETag, info.ChecksumCRC32C != "", nil
}

// Get implements objstore.Bucket. Objects above 1 GiB are refused.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, objstore.Info, error) {
	if err := check(ctx, "get", key); err != nil {
		return nil, objstore.Info{}, err
	}
	body, stat, _, err := b.core.GetObject(ctx, b.name, b.base+key, minio.GetObjectOptions{})
	if err != nil {
		return nil, objstore.Info{}, b.fault("get", key, reads, err)
	}
	defer func() { _ = body.Close() }() // what was read is judged by its length
	switch {
	case stat.Size < 0:
		return nil, objstore.Info{}, fmt.Errorf("get %s: s3: the store did not say the size", key)
	case stat.Size > maxObject:
		return nil, objstore.Info{}, fmt.Errorf("get %s: %w: %d bytes, at most %d",
			key, objstore.ErrRefused, stat.Size, maxObject)
	}
	data, err := readExactly(body, stat.Size)
	if err != nil {
		return nil, objstore.Info{}, b.fault("get", key, reads, err)
	}
	return data, objstore.Info{
		Key: key, Size: stat.Size, ETag: stat.ETag, Modified: stat.LastModified,
	}, nil
}

// GetRange implements objstore.Bucket (O3).
func (b *Bucket) GetRange(
	ctx context.Context, key string, offset, length int64,
) ([]byte, error) {
	if err := check(ctx, "get", key); err != nil {
		return nil, err
	}
	refused := func(why string) error {
		return fmt.Errorf("get %s: %w: range %d+%d: %s", key, objstore.ErrRefused, offset, length,
			why)
	}
	if offset < 0 || length < 0 || length > maxObject || offset > math.MaxInt64-length {
		return nil, refused("not a range")
	}
	if length == 0 {
		stat, err := b.core.StatObject(ctx, b.name, b.base+key, minio.StatObjectOptions{})
		if err != nil {
			return nil, b.fault("get", key, reads, err)
		}
		if offset > stat.Size {
			return nil, refused(fmt.Sprintf("the object has %d bytes", stat.Size))
		}
		return []byte{}, nil
	}
	var opts minio.GetObjectOptions
	if err := opts.SetRange(offset, offset+length-1); err != nil {
		return nil, refused("not a range")
	}
	body, _, header, err := b.core.GetObject(ctx, b.name, b.base+key, opts)
	if err != nil {
		return nil, b.fault("get", key, reads, err)
	}
	defer func() { _ = body.Close() }() // what was read is judged by its length
	first, last, total, ok := parseContentRange(header.Get("Content-Range"))
	switch {
	case !ok:
		return nil, refused("the store ignores ranges")
	case total >= 0 && offset+length > total:
		return nil, refused(fmt.Sprintf("the object has %d bytes", total))
	case first != offset || last != offset+length-1:
		return nil, fmt.Errorf("get %s: s3: the store answered another range than %d+%d",
			key, offset, length)
	}
	data, err := readExactly(body, length)
	if err != nil {
		return nil, b.fault("get", key, reads, err)
	}
	return data, nil
}

// parseContentRange reads "bytes first-last/total"; total is -1 when it is unknown.
func parseContentRange(s string) (first, last, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, 0, false
	}
	span, size, ok := strings.Cut(s, "/")
	from, to, dash := strings.Cut(span, "-")
	if !ok || !dash {
		return 0, 0, 0, false
	}
	total = -1
	for _, field := range []struct {
		text string
		into *int64
	}{{from, &first}, {to, &last}, {size, &total}} {
		if field.into == &total && field.text == "*" {
			continue
		}
		n, err := strconv.ParseUint(field.text, 10, 63)
		if err != nil {
			return 0, 0, 0, false
		}
		*field.into = int64(n)
	}
	return first, last, total, first <= last && (total < 0 || last < total)
}

// Delete implements objstore.Bucket. It succeeds when the store confirmed every key.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	left := make(map[string]bool, len(keys))
	objects := make([]minio.ObjectInfo, len(keys))
	for i, key := range keys {
		if err := check(ctx, "delete", key); err != nil {
			return err
		}
		left[b.base+key] = true
		objects[i].Key = b.base + key
	}
	if len(keys) == 0 {
		return nil
	}
	results, err := b.core.RemoveObjectsWithIter(ctx, b.name, slices.Values(objects),
		minio.RemoveObjectsOptions{})
	if err != nil {
		return b.fault("delete", keys[0], writes, err)
	}
	var first error
	for r := range results {
		if r.Err == nil {
			delete(left, r.ObjectName)
			continue
		}
		answer, _ := errors.AsType[minio.ErrorResponse](r.Err)
		if answer.Code == noSuchKey {
			delete(left, r.ObjectName)
		} else if first == nil {
			first = b.fault("delete", strings.TrimPrefix(r.ObjectName, b.base), writes, r.Err)
		}
	}
	switch {
	case first != nil:
		return first
	case ctx.Err() != nil: // then the client ends in silence
		return fmt.Errorf("delete %s: %w", keys[0], ctx.Err())
	case len(left) > 0: // the client is silent about some refusals, too
		return fmt.Errorf("delete %s: s3: the store confirmed %d of %d keys", keys[0],
			len(keys)-len(left), len(keys))
	default:
		return nil
	}
}

// List implements objstore.Bucket. Names that could not be keys, such as the folders that consoles
// make, are left out. A store that does not list in order is an error.
func (b *Bucket) List(
	ctx context.Context, prefix string, fn func(objstore.Info) bool,
) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	owner, last := false, ""
	for o := range b.core.ListObjectsIter(ctx, b.name, minio.ListObjectsOptions{
		Prefix: b.base + prefix, Recursive: true, FetchOwner: &owner, MaxKeys: b.page,
	}) {
		if o.Err != nil {
			return b.fault("list", prefix, reads, o.Err)
		}
		key, ours := strings.CutPrefix(o.Key, b.base)
		if !ours || !strings.HasPrefix(key, prefix) || o.Key <= last {
			return fmt.Errorf("list %s: s3: the store lists what was not asked for, or not in "+
				"order", prefix)
		}
		last = o.Key
		if objstore.CheckKey(key) != nil {
			continue
		}
		if !fn(objstore.Info{Key: key, Size: o.Size, ETag: o.ETag, Modified: o.LastModified}) {
			return nil
		}
	}
	// The client ends in silence when ctx is done: what was listed may be a part.
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	return nil
}

// RemoteTime implements objstore.Clock. It is the Date of the last answer, in whole seconds,
// rounded down.
func (b *Bucket) RemoteTime() (remote, local time.Time, ok bool) {
	m := b.clock.last.Load()
	if m == nil {
		return time.Time{}, time.Time{}, false
	}
	return m.remote, m.local, true
}

// Close implements objstore.Bucket. Calls under way go on.
func (b *Bucket) Close() error {
	b.idle()
	return nil
}

func check(ctx context.Context, op, key string) error {
	err := ctx.Err()
	if err == nil {
		err = objstore.CheckKey(key)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	return nil
}
