// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/internal/ctl/client"
	"github.com/cicadamq/cicada/internal/daemon"
)

// TestMain lets the test program play cicada serve.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		os.Exit(serve(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func serve(args []string) int {
	flags := make(map[string]string)
	for i := 0; i+1 < len(args); i += 2 {
		flags[args[i][2:]] = args[i+1]
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := config.Load(config.Sources{Env: os.LookupEnv, Flags: flags})
	if err == nil {
		var d *daemon.Daemon
		log := daemon.NewLogger(config.Log{Level: "info", Format: "json"}, os.Stderr, false)
		if d, err = daemon.Open(ctx, cfg, daemon.Options{Logger: log}); err == nil {
			err = d.Run(ctx)
		}
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

// The story must hold on a real daemon, in a terminal and in a pipe; it is the first thing that
// anybody runs.
func TestStory(t *testing.T) {
	program, err := os.Executable()
	require.NoError(t, err)
	for name, terminal := range map[string]bool{"pipe": false, "terminal": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			dir := filepath.Join(t.TempDir(), "demo")
			err := run(t.Context(), Options{Dir: dir, Program: program, Out: &out, Now: time.Now,
				Terminal: terminal, Color: terminal}, script{
				messages: 400, cancels: 20, moves: 20, firstDue: 2500 * time.Millisecond,
				lastDue: 5 * time.Second, crash: 3 * time.Second, flush: 100 * time.Millisecond,
			})
			require.NoError(t, err, out.String())
			require.Contains(t, out.String(), "400 messages accepted, 20 cancelled, 20 moved")
			require.Contains(t, out.String(), "380 delivered: 0 lost, 0 early")
			require.Equal(t, terminal, bytes.Contains(out.Bytes(), []byte("\x1b[")))
			require.NoDirExists(t, dir)
		})
	}
}

// A demo that works in somebody's directory could delete it (Y3).
func TestRefusesAFullDirectory(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600))
	err := Run(t.Context(), Options{Dir: dir, Program: "/nonexistent", Now: time.Now})
	require.ErrorContains(t, err, "is not empty")
	require.FileExists(t, filepath.Join(dir, "mine"))
}

// Without the daemon's log nobody could tell why a story failed (Y3); one that was interrupted
// leaves nothing.
func TestKeepsWhatFailed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	opts := Options{Dir: dir, Program: "/nonexistent/cicada", Now: time.Now}
	require.ErrorContains(t, Run(t.Context(), opts), "are kept in "+dir)
	require.FileExists(t, filepath.Join(dir, "daemon.log"))
	require.NoError(t, os.RemoveAll(dir))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, Run(ctx, opts), context.Canceled)
	require.NoDirExists(t, dir)
}

// A story that hides what went wrong proves nothing: each failure is planted in what was observed
// (Y1) and must fail the story (Y2).
func TestVerdict(t *testing.T) {
	start := time.UnixMilli(1_000_000)
	at := func(ms int64) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	books := client.Books{Accepted: 8, Delivered: 2, Cancelled: 1, Suppressed: 5}
	play := func(change func(*truth)) judgement {
		tr := newTruth()
		for _, id := range []string{"a", "b", "c"} {
			tr.sent(id, start.UnixMilli()+100)
		}
		tr.cancel("c")
		tr.move("b", start.UnixMilli()+500)
		change(tr)
		return tr.judge(at(400), at(600))
	}
	good := func(tr *truth) {
		tr.received("a", at(101))
		tr.received("b", at(700))
	}
	j := play(good)
	require.NoError(t, failures(j, books))
	require.Equal(t, []time.Duration{time.Millisecond}, j.normal)
	require.Equal(t, []time.Duration{200 * time.Millisecond}, j.outage)
	require.NoError(t, failures(play(func(tr *truth) {
		good(tr)
		tr.received("a", at(800))
		require.EqualValues(t, 1, tr.now().duplicates)
	}), books), "duplicates are allowed")
	for want, change := range map[string]func(*truth){
		"1 messages were lost":                func(tr *truth) { tr.received("a", at(101)) },
		"1 messages came early":               func(tr *truth) { good(tr); tr.mu.all["b"].early = true },
		"1 cancelled messages were delivered": func(tr *truth) { good(tr); tr.received("c", at(900)) },
		"1 messages came that nobody sent":    func(tr *truth) { good(tr); tr.received("x", at(1)) },
	} {
		require.ErrorContains(t, failures(play(change), books), want)
	}
	require.ErrorContains(t, failures(play(func(tr *truth) {
		tr.received("a", at(101))
		tr.received("b", at(499))
	}), books), "1 messages came early")
	books.Delivered = 1
	require.ErrorContains(t, failures(play(good), books), "missing in the books")
	require.ErrorContains(t, failures(play(good), client.Books{Accepted: 1, LostWithDisk: 1}), "lost")
}
