// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cicadamq/cicada/broker/brokertest/realtest"
)

// process is the real program, which can be killed.
type process struct {
	t         *testing.T
	dir, file string
	cmd       *exec.Cmd
	log       bytes.Buffer
}

// run starts it; what it logs is shown when the test fails.
func (p *process) run() {
	p.t.Helper()
	p.cmd = exec.Command(filepath.Join(p.dir, "cicada"), "serve", "--config", p.file,
		"--data-dir", filepath.Join(p.dir, "data"), "--listen", "127.0.0.1:0")
	p.cmd.Stderr = &p.log
	require.NoError(p.t, p.cmd.Start())
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// loseDisk removes everything but the bucket.
func (p *process) loseDisk() {
	require.NoError(p.t, os.RemoveAll(StoreDir(filepath.Join(p.dir, "data"))))
}

// A consumer of committed messages that knows nothing of Cicada must see each request of a topic
// once and none early: while the process and the broker are killed at any moment, and when the disk
// of the process is lost (rules R16, R17).
func TestRealKafkaExactlyOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	k := realtest.Kafka(t)
	in, out := realtest.Name(t)+".in", realtest.Name(t)+".out"
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Addr), kgo.ConsumeTopics(out),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond))
	require.NoError(t, err)
	defer client.Close()
	for _, topic := range []string{in, out} {
		_, err := kadm.NewClient(client).CreateTopic(t.Context(), 3, 1, nil, topic)
		require.NoError(t, err)
	}
	p := newProcess(t, fmt.Sprintf(`tier: {flush_interval: 200ms, min_wait: 1s}
brokers:
  main:
    kind: kafka
    seeds: ["%s"]
    sources: [{topic: %s, group: %s, commit: tier}]
    sink: {mode: exactly_once, ledger_topic: %s.ledger}
`, k.Addr, in, in, in))
	const n = 2000
	seen := make(map[string]int)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	p.run()
	defer func() { p.kill() }()
	for round := range 5 {
		for i := range n / 5 {
			due := time.Now().Add(time.Duration(rng.IntN(6000)) * time.Millisecond).UnixMilli()
			client.Produce(t.Context(), &kgo.Record{
				Topic: in, Value: fmt.Appendf(nil, "%d-%d %d", round, i, due),
				Headers: []kgo.RecordHeader{
					{Key: "cicada-target", Value: []byte("kafka:main/" + out)},
					{Key: "cicada-deliver-at", Value: []byte(strconv.FormatInt(due, 10))},
				},
			}, nil)
		}
		require.NoError(t, client.Flush(t.Context()))
		poll(t, client, seen, time.Duration(rng.IntN(4000))*time.Millisecond)
		switch round {
		case 1, 3:
			p.kill()
			if round == 3 {
				p.loseDisk()
			}
			p.run()
		case 2:
			k.Kill(t)
			k.Start(t)
		}
	}
	for deadline := time.Now().Add(90 * time.Second); len(seen) < n; {
		require.True(t, time.Now().Before(deadline), "%d of %d\n%s", len(seen), n, p.tail())
		poll(t, client, seen, time.Second)
	}
	p.kill()
	p.run()
	poll(t, client, seen, 5*time.Second)
	for value, times := range seen {
		require.Equal(t, 1, times, "%s\n%s", value, p.tail())
	}
	require.Len(t, seen, n)
}

func newProcess(t *testing.T, file string) *process {
	t.Helper()
	p := &process{t: t, dir: t.TempDir()}
	p.file = filepath.Join(p.dir, "cicada.yaml")
	require.NoError(t, os.WriteFile(p.file, []byte(file), 0o600))
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(p.dir, "cicada"),
		"./cmd/cicada")
	build.Dir = filepath.Join("..", "..")
	text, err := build.CombinedOutput()
	require.NoError(t, err, "%s", text)
	return p
}

// tail is the end of the log.
func (p *process) tail() string {
	text := p.log.String()
	return text[max(0, len(text)-6000):]
}

// poll reads for a while.
func poll(t *testing.T, client *kgo.Client, seen map[string]int, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			name, due, _ := strings.Cut(string(r.Value), " ")
			at, err := strconv.ParseInt(due, 10, 64)
			require.NoError(t, err)
			require.GreaterOrEqual(t, time.Now().UnixMilli(), at, "early")
			seen[name]++
		})
	}
}
