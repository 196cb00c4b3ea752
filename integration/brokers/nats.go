// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/cicadamq/cicada/integration/ports"
)

// natsPort and natsData turn the program that called Main into a NATS server: only a process of its
// own can be killed.
const (
	natsPort = "CICADA_TEST_NATS_PORT"
	natsData = "CICADA_TEST_NATS_DATA"
)

// Main is called first by every program that starts a NATS: TestMain, or main. In the child it does
// not return.
func Main() {
	port := os.Getenv(natsPort)
	if port == "" {
		return
	}
	fmt.Fprintln(os.Stderr, "nats-server:", runNATS(port, os.Getenv(natsData)))
	os.Exit(1)
}

// NATS is a server with JetStream, which keeps its streams in files.
type NATS struct {
	*Process
	URL string
}

// StartNATS starts a server with its data in dir.
func StartNATS(dir string) (*NATS, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	at, err := ports.Reserve(1)
	if err != nil {
		return nil, err
	}
	n := &NATS{URL: "nats://" + at.Addr(0), Process: &Process{
		name: "nats", dir: dir, ready: "Server is ready", ports: at,
		command: func() *exec.Cmd {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), natsPort+"="+strconv.Itoa(at.First),
				natsData+"="+filepath.Join(dir, "nats"))
			return cmd
		},
	}}
	return n, n.Start()
}

// runNATS serves until the process is told to end.
func runNATS(port, data string) error {
	u, err := url.Parse("nats://127.0.0.1:" + port)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(u.Port())
	if err != nil {
		return err
	}
	s, err := server.NewServer(&server.Options{
		Host: u.Hostname(), Port: number, JetStream: true, StoreDir: data, Logtime: true,
	})
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	if err := server.Run(s); err != nil {
		return err
	}
	s.WaitForShutdown()
	os.Exit(0)
	return nil
}
