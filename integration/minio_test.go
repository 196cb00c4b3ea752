// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// buildWithin bounds the build of MinIO: three minutes on two idle cores, downloads included, and
// these are not idle.
const buildWithin = 14 * time.Minute

// minioBuild is the build of MinIO, which the whole suite begins at once and waits for only where
// it is needed.
var minioBuild struct {
	once    sync.Once
	cancel  context.CancelFunc
	done    chan struct{}
	program string
	err     error
}

// beginMinIO starts the build in the background.
func beginMinIO() {
	b := &minioBuild
	b.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), buildWithin)
		b.cancel, b.done = cancel, make(chan struct{})
		go func() {
			defer close(b.done)
			defer cancel()
			cmd := exec.CommandContext(ctx, "scripts/minio.sh", "build")
			cmd.SysProcAttr = childAttr()
			cmd.Cancel = func() error { return killGroup(cmd) }
			cmd.WaitDelay = 5 * time.Second
			out, err := cmd.Output()
			b.program = strings.TrimSpace(string(out))
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				err = fmt.Errorf("%w: %s", err, tail(string(exit.Stderr)))
			}
			if err != nil {
				b.err = fmt.Errorf("build MinIO: %w", err)
			}
		}()
	})
}

// minioCommand waits for the build.
func minioCommand(addr, data string) (*exec.Cmd, error) {
	beginMinIO()
	<-minioBuild.done
	if minioBuild.err != nil {
		return nil, minioBuild.err
	}
	cmd := exec.Command(minioBuild.program, "server", "--quiet", "--address", addr, data)
	cmd.Env = append(cleanEnv(), "MINIO_ROOT_USER="+storeKey, "MINIO_ROOT_PASSWORD="+storeSecret,
		"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_CALLHOME_ENABLE=off")
	return cmd, nil
}

// endMinIO ends a build that nobody waited for.
func endMinIO() {
	if minioBuild.cancel != nil {
		minioBuild.cancel()
		<-minioBuild.done
	}
}

// gatewayAddr and gatewayData turn this test program into a versitygw, see TestMain: the gateway
// changes the working directory and permits one instance in a process.
const (
	gatewayAddr = "CICADA_TEST_GATEWAY_ADDR"
	gatewayData = "CICADA_TEST_GATEWAY_DATA"
)

func gatewayCommand(addr, data string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(cleanEnv(), gatewayAddr+"="+addr, gatewayData+"="+data)
	return cmd, nil
}

// runGateway serves S3 on a directory until the process is killed.
func runGateway(addr, data string) error {
	data, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	attributes := meta.XattrMeta{}
	if err := attributes.Test(data); err != nil {
		return fmt.Errorf("versitygw needs extended attributes in %s: %w", data, err)
	}
	backend, err := posix.New(data, attributes, posix.PosixOpts{Concurrency: 1000})
	if err != nil {
		return err
	}
	return embedgw.RunVersityGW(context.Background(), backend, &embedgw.Config{
		RootUserAccess: storeKey, RootUserSecret: storeSecret, Ports: []string{addr},
		MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10_000, KeepAlive: true,
		Quiet: true, HealthPath: gatewayHealth,
	})
}

func killGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
