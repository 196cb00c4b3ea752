// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/integration/ports"
	"github.com/cicadamq/cicada/integration/torture/proxy"
)

// The keys of the stores that tests start. cleanEnv gives them to every program.
const (
	storeKey    = "cicada-test"
	storeSecret = "cicada-test-secret"
)

const gatewayHealth = "/health"

// s3Store is a real S3 store: one server for all tests, each with buckets of its own.
type s3Store struct {
	name    string
	health  string // path that answers 200
	command func(addr, data string) (*exec.Cmd, error)

	once     sync.Once
	ports    *ports.Ports
	cmd      *exec.Cmd
	exited   chan struct{}
	dir      string
	endpoint string // http://host:port
	err      error
	buckets  atomic.Int64
}

var (
	minioStore   = &s3Store{name: "minio", health: "/minio/health/live", command: minioCommand}
	gatewayStore = &s3Store{name: "versitygw", health: gatewayHealth, command: gatewayCommand}
)

// stores is where the tests of the tier run.
var stores = []*s3Store{gatewayStore, minioStore}

// need starts the store once. A test that cannot have one fails in CI; elsewhere it is skipped and
// says why.
func need(t testing.TB, s *s3Store) *s3Store {
	t.Helper()
	s.once.Do(func() { s.err = s.start() })
	if s.err != nil && os.Getenv("CI") != "true" {
		t.Skipf("%s cannot be had here: %v", s.name, s.err)
	}
	require.NoError(t, s.err)
	return s
}

// start tries other ports when somebody takes the one that was free.
func (s *s3Store) start() (err error) {
	s.dir, err = os.MkdirTemp("", "cicada-"+s.name+"-")
	if err != nil {
		return err
	}
	for range 3 {
		if err = s.serve(); err == nil {
			return nil
		}
	}
	return err
}

func (s *s3Store) serve() error {
	at, err := ports.Reserve(1)
	if err != nil {
		return err
	}
	addr := at.Addr(0)
	data := filepath.Join(s.dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	cmd, err := s.command(addr, data)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, "log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = s.dir, log, log, childAttr()
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.ports, s.cmd, s.exited, s.endpoint = at, cmd, exited, "http://"+addr
	for deadline := time.Now().Add(startWithin); time.Now().Before(deadline); {
		if resp, err := http.Get(s.endpoint + s.health); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-exited:
			text, _ := os.ReadFile(path)
			return fmt.Errorf("%s ended during its start: %s", s.name, tail(string(text)))
		case <-time.After(pollEvery):
		}
	}
	_ = cmd.Process.Kill()
	return errors.New(s.name + " was not ready in time")
}

// closeStores ends the servers and what they hold.
func closeStores() {
	for _, s := range stores {
		if s.cmd != nil {
			_ = s.cmd.Process.Kill()
			<-s.exited
		}
		if s.dir != "" {
			_ = os.RemoveAll(s.dir)
		}
	}
	endMinIO()
}

// place is a bucket in a store, or below one prefix of it.
type place struct {
	store    *s3Store
	bucket   string
	prefix   string
	endpoint string // the store's, or that of a proxy before it
}

// bucket names a bucket that nobody used; the daemon makes it.
func (s *s3Store) bucket() place {
	return place{
		store: s, bucket: fmt.Sprintf("cold-%d", s.buckets.Add(1)), prefix: "some/Where",
		endpoint: s.endpoint,
	}
}

// url is the place as --bucket takes it.
func (p place) url() string {
	q := url.Values{"endpoint": {p.endpoint}, "path_style": {"true"}, "create_bucket": {"true"}}
	return "s3://" + p.bucket + "/" + p.prefix + "?" + q.Encode()
}

// through is the same place seen through a proxy.
func (p place) through(endpoint string) place {
	p.endpoint = endpoint
	return p
}

// proxyTo starts a proxy that ends with the test.
func proxyTo(t testing.TB, endpoint string, seed uint64) *proxy.Proxy {
	t.Helper()
	p, err := proxy.To(endpoint, seed)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

// client talks to the store without the product in between.
func (p place) client(t testing.TB) *minio.Client {
	t.Helper()
	u, err := url.Parse(p.endpoint)
	require.NoError(t, err)
	c, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(storeKey, storeSecret, ""), Region: "us-east-1",
		BucketLookup: minio.BucketLookupPath,
	})
	require.NoError(t, err)
	return c
}

// keys lists every object of the bucket.
func (p place) keys(t testing.TB) (keys []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for o := range p.client(t).ListObjects(ctx, p.bucket, minio.ListObjectsOptions{Recursive: true}) {
		require.NoError(t, o.Err)
		keys = append(keys, o.Key)
	}
	return keys
}

// objectStore is the URL of an empty bucket for tests that do not mind where it is: a directory, or
// a bucket of the server that CICADA_TEST_STORE names (versitygw or minio).
func objectStore(t testing.TB) string {
	t.Helper()
	name := os.Getenv("CICADA_TEST_STORE")
	for _, s := range stores {
		if s.name == name {
			return need(t, s).bucket().url()
		}
	}
	require.Contains(t, []string{"", "file"}, name, "CICADA_TEST_STORE")
	return "file://" + filepath.Join(t.TempDir(), "bucket")
}
