// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/integration/torture/supervisor"
)

// programs are builds of the program by their tags, made once.
var programs struct {
	dir string
	mu  sync.Mutex
	by  map[string]string
}

// The supervisor starts this test program as client and as gateway.
func TestMain(m *testing.M) {
	if is, err := part(context.Background(), os.Args[1:]); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, "torture:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(suite(m))
}

func suite(m *testing.M) int {
	dir, err := os.MkdirTemp("", "cicada-torture-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs.dir, programs.by = dir, map[string]string{}
	return m.Run()
}

// program is a build with these tags.
func program(t *testing.T, tags ...string) string {
	t.Helper()
	programs.mu.Lock()
	defer programs.mu.Unlock()
	key := strings.Join(tags, ",")
	if given := os.Getenv("CICADA_TORTURE_PROGRAMS"); given != "" { // where they were built before
		return filepath.Join(given, "cicada-"+strings.Join(tags, "-"))
	}
	if programs.by[key] == "" {
		built, err := supervisor.Build(programs.dir, tags...)
		require.NoError(t, err)
		programs.by[key] = built
	}
	return programs.by[key]
}

// round is one short torture.
func round(t *testing.T, opts supervisor.Options) supervisor.Result {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	opts.Self, opts.Dir, opts.Pause = []string{self}, t.TempDir(), 4*time.Millisecond
	if opts.Clients == 0 {
		opts.Clients = 3
	}
	opts.Progress = func(s string) { t.Log(time.Now().Format("05.000"), s) }
	result, err := supervisor.Run(t.Context(), opts)
	require.NoError(t, err)
	return result
}

// Each mixture of faults, for some seconds: nothing is lost, early, delivered after CANCELLED or
// repeated beyond the bound, and what clients saw is the life of real messages. A failure names the
// seed, and CICADA_SEED repeats it.
func TestTorture(t *testing.T) {
	length := 8 * time.Second
	if testing.Short() {
		t.Skip("torture takes a minute")
	}
	for _, tc := range []struct {
		store  string
		faults []string
		seed   uint64
	}{
		{"versity", []string{"kill", "bucket", "client"}, 11},
		{"versity", []string{"kill", "stop", "restore", "bucket"}, 12},
		{"file", []string{"clock", "kill"}, 13},
		{"file", []string{"term", "disk"}, 14},
	} {
		t.Run(strings.Join(tc.faults, "+"), func(t *testing.T) {
			if v := os.Getenv("CICADA_SEED"); v != "" {
				n, err := strconv.ParseUint(v, 10, 64)
				require.NoError(t, err)
				tc.seed = n
			}
			r := round(t, supervisor.Options{
				For: length, Seed: tc.seed, Store: tc.store, Faults: tc.faults,
				Program: program(t, "torture"),
			})
			t.Logf("%d messages, %v, late %v, %s %s %s", r.Messages, r.Counts, r.LateMS, r.Proxy,
				r.Skipped, r.Notes)
			for _, v := range r.Violations {
				t.Errorf("seed %d: %s", tc.seed, v)
			}
			require.NotZero(t, r.Counts["linearized"])
			require.Less(t, 100*r.Counts["undecided"], r.Counts["linearized"])
		})
	}
}

// The ordinary program must hold nothing that could step its clocks (X1).
func TestOrdinaryBuild(t *testing.T) {
	const name = "CICADA_TORTURE"
	with, err := os.ReadFile(program(t, "torture"))
	require.NoError(t, err)
	require.True(t, bytes.Contains(with, []byte(name)))
	without, err := os.ReadFile(program(t))
	require.NoError(t, err)
	require.False(t, bytes.Contains(without, []byte(name)))
	require.False(t, bytes.Contains(without, []byte("CICADA_PLANTED")))
}

// planted is the number of a planted mistake, which the daemon reads from its environment.
func planted(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/cicadamq/cicada/integration").Output()
	require.NoError(t, err)
	source := filepath.Join(strings.TrimSpace(string(out)), "..", "internal", "planted", "planted.go")
	text, err := os.ReadFile(source)
	require.NoError(t, err)
	names := regexp.MustCompile(`(?m)^\t([A-Z]\w*)(?:\s+Bug = iota)?(?:\s*//.*)?$`).
		FindAllStringSubmatch(string(text), -1)
	i := slices.IndexFunc(names, func(m []string) bool { return m[1] == name })
	require.Positive(t, i, "%s is not planted", name)
	return strconv.Itoa(i)
}

// A torture that finds nothing in a broken program proves nothing: mistakes that one line makes
// must be found from outside, through the API and the receivers alone.
func TestFindsPlanted(t *testing.T) {
	if testing.Short() {
		t.Skip("torture takes a minute")
	}
	for _, tc := range []struct {
		mistake string
		faults  []string
		rules   []string
	}{
		{"ClaimUnasked", []string{"kill"}, []string{"order", "cancelled"}},
		{"BatchAck", []string{"kill"}, []string{"order", "acked", "lost"}},
	} {
		t.Run(tc.mistake, func(t *testing.T) {
			var rules []string
			for seed := range uint64(8) { // the slower the machine, the less is tried in one
				r := round(t, supervisor.Options{
					For: 5 * time.Second, Seed: 100 + seed, Store: "file", Faults: tc.faults,
					Program: program(t, "torture", "exam"),
					Env:     []string{"CICADA_PLANTED=" + planted(t, tc.mistake)},
				})
				for _, v := range r.Violations {
					rules = append(rules, v.Rule)
				}
				if slices.ContainsFunc(rules, func(v string) bool { return slices.Contains(tc.rules, v) }) {
					return
				}
			}
			require.Fail(t, "not found", "%v", rules)
		})
	}
}
