// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cicadamq/cicada/integration/brokers"
)

// program is the program under test, built once.
var program string

func TestMain(m *testing.M) {
	brokers.Main() // in the child that is a NATS server it does not return
	if addr := os.Getenv(gatewayAddr); addr != "" {
		fmt.Fprintln(os.Stderr, "versitygw:", runGateway(addr, os.Getenv(gatewayData)))
		os.Exit(1)
	}
	os.Exit(run(m))
}

// run builds the program and runs the tests with it.
func run(m *testing.M) int {
	program = os.Getenv("CICADA_BINARY")
	dir, err := os.MkdirTemp("", "cicada-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a directory:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	if program == "" {
		program = filepath.Join(dir, "cicada")
		// As the Dockerfile does, so that its packages are compiled once, see TestDockerfileBuilds.
		build := exec.Command("go", "build", "-trimpath", "-o", program, "./cmd/cicada")
		build.Dir = ".."
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
			return 1
		}
	}
	// A user without rights must be able to run it, see TestUnreadableBucket.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, "open the directory to others:", err)
		return 1
	}
	flag.Parse()
	if flag.Lookup("test.run").Value.String() == "" {
		beginMinIO() // the whole suite needs it in the end
	}
	code := m.Run()
	closeShared()
	closeStores()
	closePark()
	return code
}
