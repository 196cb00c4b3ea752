// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/integration/brokers"
)

// park are the real brokers of this run, each started when a test needs it.
var park struct {
	once sync.Once
	dir  string
	all  *brokers.Park
	err  error
}

// realBrokers is the park.
func realBrokers(t testing.TB) *brokers.Park {
	t.Helper()
	park.once.Do(func() {
		if park.dir, park.err = os.MkdirTemp("", "cicada-brokers-"); park.err == nil {
			park.all = brokers.NewPark(park.dir)
		}
	})
	require.NoError(t, park.err)
	return park.all
}

// closePark ends the brokers.
func closePark() {
	if park.all != nil {
		park.all.Close()
	}
	if park.dir != "" {
		_ = os.RemoveAll(park.dir)
	}
}

// What the packages of the brokers believe about Kafka, NATS and RocketMQ must hold for the real
// ones, which crash, pause and come back: the fakes of their fast tests are made by who wrote the
// code.
func TestRealBrokers(t *testing.T) {
	p := realBrokers(t)
	s := httptest.NewServer(p)
	defer s.Close()
	// The brokers start one after the other on first use, which is slow on few cores: the packages
	// run one by one, so that no test waits for another's broker.
	for kind, start := range map[string]func(t testing.TB){
		"kafka":    func(t testing.TB) { brokers.Need(t, p.Kafka) },
		"nats":     func(t testing.TB) { brokers.Need(t, p.NATS) },
		"rocketmq": func(t testing.TB) { brokers.Need(t, p.RocketMQ) },
		"daemon": func(t testing.TB) { // from end to end, from each kind to each
			brokers.Need(t, p.Kafka)
			brokers.Need(t, p.NATS)
			brokers.Need(t, p.RocketMQ)
		},
	} {
		t.Run(kind, func(t *testing.T) {
			start(t)
			tests := "./broker/" + kind + "/..."
			if kind == "daemon" {
				tests = "./internal/daemon"
			}
			cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-p=1", "-timeout=12m",
				"-run=^TestReal", "-v", tests)
			cmd.Dir = ".."
			cmd.Env = append(cleanEnv(), brokers.Variable+"="+s.URL)
			cmd.SysProcAttr = childAttr()
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), "--- PASS: TestReal", "nothing ran: %s", out)
			for line := range strings.Lines(string(out)) {
				if strings.HasPrefix(line, "--- SKIP: TestReal") {
					require.Fail(t, "a test was skipped", "%s", out)
				}
			}
		})
	}
}
