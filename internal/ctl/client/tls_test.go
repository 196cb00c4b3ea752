// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A command must talk to the daemon whose authority it was given, to no other, and there must be no
// way around the check.
func TestTLS(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	ca, junk := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "junk.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{
		Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600))
	require.NoError(t, os.WriteFile(junk, []byte("x"), 0o600))
	c, err := New(srv.URL, Options{TLS: TLS{CACert: ca}})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, c.Ready(t.Context()))
	c, err = New(srv.URL, Options{})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.ErrorContains(t, c.Ready(t.Context()), "certificate")
	for _, bad := range []TLS{
		{CACert: junk}, {CACert: filepath.Join(dir, "none")}, {Cert: ca}, {Key: ca}, {Cert: ca, Key: junk},
	} {
		_, err := New(srv.URL, Options{TLS: bad})
		require.Error(t, err, "%+v", bad)
	}
}
