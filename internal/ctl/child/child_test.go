// SPDX-License-Identifier: Apache-2.0

package child

import (
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test program play the daemon.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "serve" {
		os.Exit(play(os.Args[3], os.Args[4:]))
	}
	os.Exit(m.Run())
}

func play(listen string, args []string) int {
	if len(args) > 0 && args[0] == "broken" {
		os.Stderr.WriteString("no luck today\n")
		return 1
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	srv := &http.Server{Addr: listen, Handler: http.NotFoundHandler()}
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	srv.Handler = mux
	go func() { _ = srv.ListenAndServe() }()
	<-term
	return 0
}

// A process that outlives its test or bench would keep a port and a data directory (P2).
func TestStartStopKill(t *testing.T) {
	program, err := os.Executable()
	require.NoError(t, err)
	opts := Options{Program: program, LogFile: filepath.Join(t.TempDir(), "log"), Now: time.Now}
	p, err := Start(t.Context(), opts)
	require.NoError(t, err)
	require.Positive(t, p.RSS())
	pid := p.cmd.Process.Pid
	require.NoError(t, p.Stop())
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)

	opts.Listen = p.Server()
	p, err = Start(t.Context(), opts)
	require.NoError(t, err)
	require.Equal(t, opts.Listen, p.Server())
	require.NoError(t, p.Kill())
}

// A daemon that cannot start must be reported with its own words, soon (P1).
func TestStartBroken(t *testing.T) {
	program, err := os.Executable()
	require.NoError(t, err)
	_, err = Start(t.Context(), Options{Program: program, Args: []string{"broken"},
		LogFile: filepath.Join(t.TempDir(), "log"), Now: time.Now})
	require.ErrorContains(t, err, "no luck today")
}
