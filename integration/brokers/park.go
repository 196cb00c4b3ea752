// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Park holds one of each kind of broker, started when somebody asks for it. Tests share it: they
// use topics, groups and streams of their own, and leave a broker running when they killed it.
type Park struct {
	dir string

	mu       sync.Mutex
	kafka    *Kafka
	nats     *NATS
	rocketmq *RocketMQ
	errs     map[string]error
}

// NewPark keeps the brokers' data in dir.
func NewPark(dir string) *Park { return &Park{dir: dir, errs: map[string]error{}} }

// Kafka is the park's node.
func (p *Park) Kafka() (*Kafka, error) {
	return share(p, "kafka", &p.kafka, func(dir string) (*Kafka, error) { return StartKafka(dir) })
}

// NATS is the park's server.
func (p *Park) NATS() (*NATS, error) { return share(p, "nats", &p.nats, StartNATS) }

// RocketMQ is the park's name server and broker, without a proxy and without a tiered store.
func (p *Park) RocketMQ() (*RocketMQ, error) {
	return share(p, "rocketmq", &p.rocketmq, func(dir string) (*RocketMQ, error) {
		return StartRocketMQ(dir, RocketMQOptions{})
	})
}

// share starts a broker at the first call; the others wait. A failure is remembered: what cannot be
// had costs its time once.
func share[B comparable](p *Park, name string, at *B, start func(dir string) (B, error)) (B, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var none B
	if *at != none || p.errs[name] != nil {
		return *at, p.errs[name]
	}
	dir := filepath.Join(p.dir, name)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		*at, err = start(dir)
	}
	p.errs[name] = err
	return *at, err
}

// Close kills them all. Their data stays.
func (p *Park) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kafka != nil {
		_ = p.kafka.Kill()
	}
	if p.nats != nil {
		_ = p.nats.Kill()
	}
	if p.rocketmq != nil {
		_ = p.rocketmq.Kill()
	}
}

// Need is the broker that start returns. Without it a test fails in CI; elsewhere it is skipped
// when a part is missing, and says which.
func Need[B any](tb testing.TB, start func() (B, error)) B {
	tb.Helper()
	b, err := start()
	switch {
	case err == nil:
	case errors.Is(err, ErrMissing) && os.Getenv("CI") != "true":
		tb.Skip(err)
	default:
		tb.Fatal(err)
	}
	return b
}

// Variable names the address of a Park's ServeHTTP for tests in other processes.
const Variable = "CICADA_TEST_BROKERS"

// ServeHTTP lets tests in other processes use the park: GET /kafka answers the broker's address,
// and starts it if needed; POST /kafka/kill and so on do what the method of Process does. It
// answers 501 for a broker that cannot be had here.
func (p *Park) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{name}", func(w http.ResponseWriter, r *http.Request) {
		_, addr, err := p.find(r.PathValue("name"))
		answer(w, addr, err)
	})
	mux.HandleFunc("POST /{name}/{do}", func(w http.ResponseWriter, r *http.Request) {
		process, _, err := p.find(r.PathValue("name"))
		if err == nil {
			err = do(process, r.PathValue("do"))
		}
		answer(w, "done", err)
	})
	mux.ServeHTTP(w, r)
}

func answer(w http.ResponseWriter, text string, err error) {
	switch {
	case errors.Is(err, ErrMissing):
		http.Error(w, err.Error(), http.StatusNotImplemented)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		fmt.Fprint(w, text)
	}
}

// find is a process by its name, and its address.
func (p *Park) find(name string) (*Process, string, error) {
	switch name {
	case "kafka":
		k, err := p.Kafka()
		if err != nil {
			return nil, "", err
		}
		return k.Process, k.Addr, nil
	case "nats":
		n, err := p.NATS()
		if err != nil {
			return nil, "", err
		}
		return n.Process, n.URL, nil
	case "rocketmq", "rocketmq-broker":
		r, err := p.RocketMQ()
		if err != nil {
			return nil, "", err
		}
		if name == "rocketmq" {
			return r.NameServer, r.NameAddr, nil
		}
		return r.Broker, r.BrokerAddr, nil
	}
	return nil, "", fmt.Errorf("no broker is called %q", name)
}

func do(p *Process, what string) error {
	switch what {
	case "start":
		return p.Start()
	case "stop":
		return p.Stop()
	case "kill":
		return p.Kill()
	case "pause":
		return p.Pause()
	case "continue":
		return p.Continue()
	}
	return fmt.Errorf("a broker cannot %q", what)
}
