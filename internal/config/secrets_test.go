// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// An address that others reach must be refused in every spelling, unless the operator has guarded
// it or said otherwise; one of the machine itself must not be.
func TestPublicAddresses(t *testing.T) {
	for _, addr := range []string{
		"0.0.0.0:7170", ":7170", "[::]:7170", "[::0]:7170", "[0:0:0:0:0:0:0:0]:7170",
		"[::ffff:0.0.0.0]:7170", "[::ffff:10.0.0.1]:7170", "10.0.0.1:7170", "192.168.1.1:0",
		"169.254.1.1:7170", "8.8.8.8:7170", "[2606:4700::1111]:7170", "[fe80::1]:7170",
		"[fe80::1%eth0]:7170", "[::1%lo]:7170", "example.com:7170", "localhost.example.com:7170",
		"localhost.:7170", "LOCALHOST:7170", "ip6-localhost:7170", "127.1:7170", "0x7f.0.0.1:7170",
		"2130706433:7170", "0177.0.0.1:7170", "127.0.0.1.:7170", "0:7170", "*:7170", "host:7170",
		"[64:ff9b::7f00:1]:7170", "[2002:7f00:1::]:7170",
	} {
		flags := map[string]string{"listen": addr}
		_, err := Load(given("", nil, flags))
		require.ErrorContains(t, err, "is not a loopback address", addr)
		flags["insecure-open"] = "true"
		c, err := Load(given("", nil, flags))
		require.NoError(t, err, addr)
		require.True(t, c.Guarded())
		// TLS alone or tokens alone guard nothing.
		tokens := "api:\n  tokens:\n    - {name: app, token: 0123456789abcdef, scopes: [read]}\n"
		tls := map[string]string{"listen": addr, "api-tls-cert": "/c", "api-tls-key": "/k"}
		_, err = Load(given("", nil, tls))
		require.Error(t, err, addr)
		_, err = Load(given(tokens, nil, map[string]string{"listen": addr}))
		require.Error(t, err, addr)
		_, err = Load(given(tokens, nil, tls))
		require.NoError(t, err, addr)
		tls["api-tls-client-ca"] = "/ca"
		_, err = Load(given("api:\n  clients:\n    - {name: app, scopes: [read]}\n", nil, tls))
		require.NoError(t, err, addr)
	}
	for _, addr := range []string{
		"127.0.0.1:7170", "localhost:7170", "[::1]:7170", "127.1.2.3:0", "[::ffff:127.0.0.1]:7170",
	} {
		c, err := Load(given("", nil, map[string]string{"listen": addr}))
		require.NoError(t, err, addr)
		require.False(t, c.Guarded())
	}
}

// Who gets in must be as it was written, and what was not understood must stop the start: a limit
// that is dropped would let a client everywhere.
func TestCredentials(t *testing.T) {
	tls := map[string]string{"api-tls-cert": "/c", "api-tls-key": "/k", "api-tls-client-ca": "/ca"}
	c, err := Load(given(`api:
  tokens:
    - {token: "file:/run/secret-token", scopes: [send], targets: ["pull:a*", "https://*.example/*"]}
    - {name: ops, sha256: "`+strings.Repeat("AB", 32)+`", scopes: [admin]}
  clients:
    - {name: shop.example, scopes: [read], targets: ["pull:b"]}
`, map[string]string{}, tls))
	require.Error(t, err, "the file is missing")
	require.Nil(t, c)
	c, err = Load(given(`api:
  tokens:
    - {token: "${T}", scopes: [send], targets: ["pull:a*", "https://*.example/*"]}
    - {name: ops, sha256: "`+strings.Repeat("AB", 32)+`", scopes: [admin]}
  clients:
    - {name: shop.example, scopes: [read], targets: ["pull:b"]}
`, map[string]string{"T": "0123456789abcdef"}, tls))
	require.NoError(t, err)
	require.Equal(t, "#1", c.Tokens[0].Name)
	require.Equal(t, []string{"pull:a*", "https://*.example/*"}, c.Tokens[0].Targets)
	require.Equal(t, strings.Repeat("ab", 32), c.Tokens[1].SHA256)
	require.Equal(t, []Client{{Name: "shop.example", Scopes: []string{"read"},
		Targets: []string{"pull:b"}}}, c.Clients)
	require.Equal(t, []string{"c.yaml"}, c.Files)
	require.Equal(t, []string{"/k"}, c.SecretFiles)
	var out bytes.Buffer
	require.NoError(t, c.Print(&out))
	again, err := Load(given(out.String(), nil, nil))
	require.NoError(t, err)
	require.Equal(t, c.Tokens, again.Tokens)
	require.Equal(t, c.Clients, again.Clients)
	require.Empty(t, NeedRestart(c, again))
	again.DataDir, again.S3.SessionToken = "elsewhere", "x"
	require.Equal(t, []string{"data_dir", "tier.s3"}, NeedRestart(c, again))

	const entry = "api:\n  tokens:\n    - {name: a, token: 0123456789abcdef, scopes: [read]%s}\n"
	for text, want := range map[string]string{
		fmt.Sprintf(entry, ", targets: []"):                                                    "c.yaml:3: api.tokens[0].targets: the list is empty",
		fmt.Sprintf(entry, ", targets: pull:a"):                                                "want a list",
		fmt.Sprintf(entry, ", targets: [orders]"):                                              `"orders": want a kind of target`,
		fmt.Sprintf(entry, ", target: [\"pull:a\"]"):                                           "unknown key; want name, sha256, token",
		fmt.Sprintf(entry, ", targets: [\"**\"]"):                                              `"**": want a kind of target`,
		fmt.Sprintf(entry, "") + "    - {name: b, token: 0123456789abcdef, scopes: [admin]}\n": "is the token of another entry",
		"api:\n  clients:\n    - {name: a, scopes: [read]}\n":                                  "api.clients: needs api.tls.client_ca",
		"api:\n  clients:\n    - {scopes: [read]}\n":                                           "needs name and scopes",
		"api:\n  clients:\n    - {name: a, scopes: [read]}\n    - {name: a, scopes: [send]}\n": "is the name of another entry",
		"api:\n  clients:\n    - {name: a, scopes: [all]}\n":                                   "want read, send or admin",
		"api:\n  clients:\n    - {name: \"a\\nb\", scopes: [read]}\n":                          "without control characters",
		"api:\n  tls: {client_ca: /ca}\n":                                                      "needs api.tls.cert and api.tls.key",
		"api:\n  tls: {client_cert: perhaps}\n":                                                "want required, optional",
	} {
		_, err := Load(given(text, nil, nil))
		require.ErrorContains(t, err, want, text)
	}
}

// A secret must not show however it is printed, alone or inside something (G3).
func TestSecretNeverShows(t *testing.T) {
	const canary = "canary-0123456789"
	s := Secret(canary)
	whole := Config{
		S3:       Credentials{SecretAccessKey: s, SessionToken: s},
		Webhooks: Webhooks{Secrets: []SigningKey{{ID: "k", Key: s}}},
	}
	values := []any{s, &s, []Secret{s}, map[string]Secret{"a": s}, struct{ S Secret }{s}, whole, &whole,
		whole.S3, whole.Webhooks, whole.Webhooks.Secrets}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			text := fmt.Sprintf(verb, v)
			require.NotContains(t, text, canary, "%s %T", verb, v)
			require.NotContains(t, strings.ToLower(text), fmt.Sprintf("%x", canary), "%s %T", verb, v)
		}
		text := fmt.Errorf("wrap: %v: %w", v, errors.New("x")).Error() + fmt.Sprint(v) + fmt.Sprintln(v)
		require.NotContains(t, text, canary)
		asJSON, err := json.Marshal(v)
		require.NoError(t, err)
		require.NotContains(t, string(asJSON), canary)
		asYAML, err := yaml.Marshal(v)
		require.NoError(t, err)
		require.NotContains(t, string(asYAML), canary)
	}
	require.Equal(t, canary, s.Reveal())
	require.Empty(t, Secret("").String())
}
