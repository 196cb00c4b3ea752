// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The tier on versitygw: the whole suite in seconds, and nothing to build.
func TestVersity(t *testing.T) {
	t.Parallel()
	storeSuite(t, gatewayStore)
}

// The same on the real MinIO.
func TestMinIO(t *testing.T) {
	t.Parallel()
	storeSuite(t, minioStore)
}

func storeSuite(t *testing.T, s *s3Store) {
	need(t, s)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *s3Store)
	}{
		{"end to end", storeEndToEnd},
		{"torture", storeTorture},
		{"own tests of the tier", storeOwnTests},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.run(t, s)
		})
	}
}

// The conformance suite, the probe and the model of the tier, which live beside the code and
// know its insides, must hold on a store that others wrote.
func storeOwnTests(t *testing.T, s *s3Store) {
	cmd := exec.Command("go", "test", "-count=1", "-timeout=10m", "-run=^TestRealStore", "-v",
		"./tiered/...")
	cmd.Dir = ".."
	cmd.Env = append(cleanEnv(), "CICADA_TEST_S3="+
		strings.Replace(s.endpoint, "://", "://"+storeKey+":"+storeSecret+"@", 1))
	cmd.SysProcAttr = childAttr()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, name := range []string{"TestRealStore", "TestRealStoreProbe", "TestRealStoreModel"} {
		require.Contains(t, string(out), "--- PASS: "+name+" ", "%s", out)
	}
	require.NotContains(t, string(out), "--- SKIP")
}

// anyKey is every name that may be in a bucket: nothing in it was chosen by a user but the prefix.
var anyKey = regexp.MustCompile(`^some/Where/(v1/cluster/format|probe/[a-z0-9]{26}-[0-9]+|` +
	`v1/[0-9a-f]{2}/0/(manifest|(l0|l1|kept|marks)/[0-9]{7}-[0-9a-z]{26}\.(seg|mrk)))$`)

// tierIsWhole checks a bucket from outside: every object that the manifest names is there and
// right, and no name tells what is in it.
func tierIsWhole(t *testing.T, p place) {
	t.Helper()
	r := cliRun{}.run(t, "tier", "verify", "--bucket", p.url())
	require.Equal(t, 0, r.code, "tier verify: %s", r)
	keys := p.keys(t)
	require.NotEmpty(t, keys)
	for _, key := range keys {
		require.Regexp(t, anyKey, key)
	}
	r = cliRun{}.run(t, "tier", "ls", "--bucket", p.url(), "-o", "jsonl")
	require.Equal(t, 0, r.code, "tier ls: %s", r)
	for _, o := range jsonLines(t, r.out) {
		if name := text(o, "name"); strings.HasSuffix(name, ".seg") || strings.HasSuffix(name, ".mrk") {
			require.True(t, slices.ContainsFunc(keys, func(key string) bool {
				return strings.HasSuffix(key, "/"+name)
			}), "%s is listed and missing", name)
		}
	}
}

// canary is in everything that a user chooses.
const canary = "kanarienvogel"

// A daemon on a real store, from its first start, with near and far messages, a cancel and a move,
// until after the loss of its disk: everything is delivered, and the tools can read the bucket.
func storeEndToEnd(t *testing.T, s *s3Store) {
	p := s.bucket()
	d := serve(t, append([]string{"--bucket", p.url()}, tortured...)...)
	const n = 300
	var batch []obj
	for i := range n {
		batch = append(batch, obj{
			"id": fmt.Sprint(canary, "-", i), "target": "pull:" + canary, "key": canary,
			"headers": obj{canary: canary}, "body": fmt.Sprint(canary, " ", i), "durability": "tier",
			"delay": fmt.Sprintf("%dms", 2000+i*20),
		})
	}
	d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
	far := func(i int) string { return fmt.Sprint(canary, "-far-", i) }
	for i := range 4 {
		d.send(obj{
			"id": far(i), "target": "pull:" + canary, "delay": fmt.Sprintf("%dd", 1+i*200),
			"durability": "tier", "body": "far",
		})
	}
	require.Equal(t, "CANCELLED", d.call("DELETE", path(far(1)), nil).ok(t)["result"])
	require.Equal(t, "tier", d.call("PATCH", path(far(2)), obj{"delay": "3s"}).ok(t)["durability"])
	d.kill()
	require.NoError(t, os.RemoveAll(d.data))
	d.start()
	got := map[string]bool{}
	eventually(t, "everything is delivered", func() bool {
		for _, m := range d.pull(canary, obj{"wait": "1s", "max": 500}) {
			require.LessOrEqual(t, num(t, m, "due_ms"), time.Now().UnixMilli(), "early")
			require.False(t, got[text(m, "id")], "twice")
			got[text(m, "id")] = true
			d.ack(canary, text(m, "receipt"))
		}
		return len(got) == n+1
	})
	require.True(t, got[far(2)], "the one that was moved near")
	require.Equal(t, "cancelled", d.state(far(1)))
	for _, i := range []int{0, 3} {
		m := d.call("GET", path(far(i))+"?body=true", nil).ok(t)
		require.Equal(t, "cold", m["tier"])
		require.Equal(t, "far", m["body"])
	}
	balanced(t, d.books())

	c := cli(t, d)
	require.NotEmpty(t, c.ok("tier", "status"))
	c.ok("doctor")
	for _, verb := range [][]string{{"ls"}, {"verify"}, {"restore", "--dry-run"}} {
		args := append(append([]string{"tier"}, verb...), "--bucket", p.url())
		r := cliRun{}.run(t, args...)
		require.Equal(t, 0, r.code, "%v: %s", args, r)
		require.NotContains(t, r.out+r.err, storeSecret)
	}
	require.NotContains(t, d.logFrom(0), storeSecret)
	d.stop() // a flush would come between the two lists that are compared
	tierIsWhole(t, p)
}

// Clients, crashes and lost disks, on a store that can be reached only through a network that
// delays, cuts and lies about outcomes; some crashes come right before or after a request to the
// store, at any step of an upload, a commit or a restore. Nothing accepted is lost, nothing is
// early, nothing comes after CANCELLED, and the bucket is whole in the end.
func storeTorture(t *testing.T, s *s3Store) {
	seed, length := seedAndLength(t, 4)
	p := s.bucket()
	net := proxyTo(t, p.endpoint, seed)
	d := newDaemon(t, append([]string{
		"--bucket", p.through(net.URL()).url(), "--tier-collect-interval", "500ms",
		"--tier-delete-grace", "1s",
	}, tortured...)...)
	t.Cleanup(d.kill)
	d.start()
	net.Kill = d.kill
	net.Calm.Store(false)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(strings.Join(net.Events(), "\n"))
		}
	})
	x := &torture{t: t, d: d, seed: seed, loss: true, starts: 20, clients: 16}
	x.calm = func() {
		net.Calm.Store(true)
		d.kill() // if it was not yet
		require.NoError(t, x.start())
	}
	x.run(length, func(rng *rand.Rand) {
		x.mu.Lock()
		lost := rng.IntN(2) == 0 || len(x.lost) == 0
		x.mu.Unlock()
		x.d.kill()
		if lost {
			require.NoError(t, os.RemoveAll(d.data))
			x.mu.Lock()
			x.lost = append(x.lost, time.Now())
			x.mu.Unlock()
		}
	})
	t.Log(net)
	d.stop()
	tierIsWhole(t, p)
}
