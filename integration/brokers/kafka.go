// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/cicadamq/cicada/integration/ports"
)

// Kafka is one node, broker and controller.
type Kafka struct {
	*Process
	Addr string // bootstrap, host:port
}

// StartKafka starts a node with its data in dir. settings are lines of its configuration.
func StartKafka(dir string, settings ...string) (*Kafka, error) {
	path, err := Script("kafka.sh")
	if err != nil {
		return nil, err
	}
	at, err := ports.Reserve(2)
	if err != nil {
		return nil, err
	}
	k := &Kafka{Addr: at.Addr(0), Process: &Process{
		name: "kafka", dir: dir, ready: "Kafka Server started", ports: at,
		command: func() *exec.Cmd {
			cmd := exec.Command(path, "serve", dir, strconv.Itoa(at.First))
			cmd.Env = append(os.Environ(),
				"CICADA_KAFKA_SETTINGS="+strings.Join(settings, "\n"))
			return cmd
		},
	}}
	return k, k.Start()
}
