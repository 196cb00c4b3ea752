// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// BucketKind is the kind of the cold tier's store.
type BucketKind string

// The kinds of buckets.
const (
	NoBucket   BucketKind = "none" // no cold tier: nothing survives the loss of the disk
	FileBucket BucketKind = "file" // a directory
	S3Bucket   BucketKind = "s3"   // a remote object store
)

// Bucket says where the cold tier is.
type Bucket struct {
	Kind BucketKind
	Dir  string // of a file bucket: absolute
	// Of an S3 bucket:
	Name         string
	Prefix       string
	Endpoint     string // "" is AWS
	Region       string
	PathStyle    bool
	CreateBucket bool
	Derived      bool // below the data directory because nothing else was said
}

// String is the URL that ParseBucket reads back.
func (b Bucket) String() string {
	switch b.Kind {
	case FileBucket:
		return (&url.URL{Scheme: "file", Path: b.Dir}).String()
	case S3Bucket:
		q := url.Values{}
		for name, v := range map[string]string{"endpoint": b.Endpoint, "region": b.Region} {
			if v != "" {
				q.Set(name, v)
			}
		}
		if b.PathStyle {
			q.Set("path_style", "true")
		}
		if b.CreateBucket {
			q.Set("create_bucket", "true")
		}
		u := url.URL{Scheme: "s3", Host: b.Name, Path: b.Prefix, RawQuery: q.Encode()}
		if b.Prefix != "" {
			u.Path = "/" + b.Prefix
		}
		return u.String()
	default:
		return string(NoBucket)
	}
}

// ParseBucket reads the URL of a bucket: none, file:///abs/dir or s3://bucket/prefix?….
func ParseBucket(s string) (Bucket, error) {
	if s == string(NoBucket) {
		return Bucket{Kind: NoBucket}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return Bucket{}, errors.New("is not a URL")
	}
	if u.User != nil {
		return Bucket{}, errors.New("must not hold credentials; use AWS_ACCESS_KEY_ID and " +
			"AWS_SECRET_ACCESS_KEY")
	}
	if u.Fragment != "" {
		return Bucket{}, errors.New("must not have a fragment")
	}
	switch u.Scheme {
	case "file":
		return fileBucket(u)
	case "s3":
		return s3Bucket(u)
	default:
		return Bucket{}, errors.New("want file:///absolute/dir, s3://bucket/prefix or none")
	}
}

func fileBucket(u *url.URL) (Bucket, error) {
	if u.Host != "" || !filepath.IsAbs(u.Path) {
		return Bucket{}, errors.New("want an absolute directory, three slashes: file:///dir")
	}
	if u.RawQuery != "" {
		return Bucket{}, errors.New("a file bucket has no options")
	}
	return Bucket{Kind: FileBucket, Dir: filepath.Clean(u.Path)}, nil
}

// s3Name is what every S3 store accepts as the name of a bucket.
var s3Name = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

func s3Bucket(u *url.URL) (Bucket, error) {
	b := Bucket{Kind: S3Bucket, Name: u.Host, Prefix: strings.Trim(u.Path, "/")}
	if !s3Name.MatchString(b.Name) {
		return Bucket{}, fmt.Errorf("%q is not a bucket's name: 3 to 63 of a-z 0-9 . -", b.Name)
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Bucket{}, errors.New("the part after ? cannot be read")
	}
	for name, v := range values {
		if len(v) != 1 {
			return Bucket{}, fmt.Errorf("%s is given more than once", name)
		}
		if err := b.option(name, v[0]); err != nil {
			return Bucket{}, err
		}
	}
	return b, nil
}

func (b *Bucket) option(name, v string) error {
	switch name {
	case "endpoint":
		e, err := url.Parse(v)
		if err != nil || e.Host == "" || e.Scheme != "http" && e.Scheme != "https" ||
			e.User != nil || strings.Trim(e.Path, "/") != "" {
			return errors.New("endpoint: want http://host:port or https://host")
		}
		b.Endpoint = v
		return nil
	case "region":
		b.Region = v
		return nil
	case "path_style":
		return readBool(name, v, &b.PathStyle)
	case "create_bucket":
		return readBool(name, v, &b.CreateBucket)
	default:
		return fmt.Errorf("unknown option %q: want endpoint, region, path_style, create_bucket",
			name)
	}
}

func readBool(name, v string, into *bool) error {
	on, err := strconv.ParseBool(v)
	if err != nil || v != "true" && v != "false" {
		return fmt.Errorf("%s: want true or false, not %q", name, v)
	}
	*into = on
	return nil
}
