// SPDX-License-Identifier: Apache-2.0

// Package realtest hands real brokers to the tests that ask for one. The module integration/ starts
// them and runs those tests, whose names begin with TestReal; by hand:
//
//	cd integration && go run ./brokers/with go test -C .. -run TestReal ./broker/...
//
// Without the variable that `with` sets they are skipped. Brokers are shared: a test uses topics,
// groups and streams with names of its own (see Name), does not run in parallel with others when it
// ends a broker, and leaves it running.
package realtest

import (
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Variable names the address at which integration/brokers answers.
const Variable = "CICADA_TEST_BROKERS"

// Broker is a server in a process of its own. Its methods return when it is done, and fail the test
// when it cannot be.
type Broker struct {
	// Addr is host:port of a Kafka node, a RocketMQ name server or a RocketMQ broker, and the URL
	// of a NATS server. It stays the same when the broker is started again.
	Addr string

	at string // http://host:port/name
}

// Kafka is a Kafka node: KRaft, one replica, topics are not created on their own.
func Kafka(t testing.TB) Broker { return need(t, "kafka") }

// NATS is a NATS server with JetStream in files.
func NATS(t testing.TB) Broker { return need(t, "nats") }

// RocketMQ is a RocketMQ name server and the broker that it knows.
func RocketMQ(t testing.TB) (nameServer, broker Broker) {
	return need(t, "rocketmq"), need(t, "rocketmq-broker")
}

// Name is a name that no other test uses, of letters, digits and dashes.
func Name(t testing.TB) string {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
	return name[:min(len(name), 40)] + "-" + strings.ToLower(rand.Text()[:8])
}

// Kill kills it: what it wrote stays, synced or not.
func (b Broker) Kill(t testing.TB) { b.do(t, "kill") }

// Stop ends it in order.
func (b Broker) Stop(t testing.TB) { b.do(t, "stop") }

// Start starts it again, and returns when it is ready.
func (b Broker) Start(t testing.TB) { b.do(t, "start") }

// Pause holds it: its connections stay open and nobody answers.
func (b Broker) Pause(t testing.TB) { b.do(t, "pause") }

// Continue lets it go on after Pause.
func (b Broker) Continue(t testing.TB) { b.do(t, "continue") }

// need asks for a broker, and starts it if it does not run.
func need(t testing.TB, name string) Broker {
	t.Helper()
	base := os.Getenv(Variable)
	if base == "" {
		t.Skip("no real brokers; see " + Variable)
	}
	b := Broker{at: base + "/" + name}
	status, text := b.call(t, http.MethodGet, "")
	if status == http.StatusNotImplemented && os.Getenv("CI") != "true" {
		t.Skip(text)
	}
	require.Equal(t, http.StatusOK, status, text)
	b.Addr = text
	b.do(t, "continue")
	return b
}

func (b Broker) do(t testing.TB, what string) {
	t.Helper()
	status, text := b.call(t, http.MethodPost, "/"+what)
	require.Equal(t, http.StatusOK, status, "%s: %s", what, text)
}

func (b Broker) call(t testing.TB, method, path string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, b.at+path, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}
