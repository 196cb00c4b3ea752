// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"

	"github.com/cicadamq/cicada/integration/ports"
)

// The keys of the store.
const (
	storeKey    = "cicada-test"
	storeSecret = "cicada-test-secret"
)

// cleanEnv is the environment without anything that configures the program.
func cleanEnv(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CICADA_") || strings.HasPrefix(v, "AWS_") ||
			strings.HasPrefix(v, "GOMEMLIMIT=")
	})
	return slices.Concat(env, []string{
		"AWS_ACCESS_KEY_ID=" + storeKey, "AWS_SECRET_ACCESS_KEY=" + storeSecret,
	}, more)
}

// store is a running S3 store.
type store struct {
	cmd      *exec.Cmd
	exited   chan struct{}
	endpoint string
	ports    *ports.Ports
}

// Gateway serves S3 on a directory until the process is killed: what the supervisor starts this
// program as. It changes the working directory, and a process can have one only.
func Gateway(ctx context.Context, addr, data string) error {
	attributes := meta.XattrMeta{}
	if err := attributes.Test(data); err != nil {
		return fmt.Errorf("versitygw needs extended attributes in %s: %w", data, err)
	}
	backend, err := posix.New(data, attributes, posix.PosixOpts{Concurrency: 1000})
	if err != nil {
		return err
	}
	return embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess: storeKey, RootUserSecret: storeSecret, Ports: []string{addr},
		MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10_000, KeepAlive: true,
		Quiet: true, HealthPath: "/health",
	})
}

// startStore starts a store of this kind in dir. self is the program that knows Gateway.
func startStore(kind, dir string, self []string) (*store, error) {
	data := filepath.Join(dir, "store")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, err
	}
	at, err := ports.Reserve(1)
	if err != nil {
		return nil, err
	}
	addr := at.Addr(0)
	var cmd *exec.Cmd
	health := "/health"
	if kind == "minio" {
		program, err := exec.Command(filepath.Join(moduleDir(), "scripts", "minio.sh"), "build").Output()
		if err != nil {
			return nil, fmt.Errorf("build MinIO: %w", err)
		}
		health = "/minio/health/live"
		cmd = exec.Command(strings.TrimSpace(string(program)), "server", "--quiet", "--address", addr,
			data)
	} else {
		args := append(slices.Clone(self[1:]), "gateway", addr, data)
		cmd = exec.Command(self[0], args...)
	}
	cmd.Env = cleanEnv("MINIO_ROOT_USER="+storeKey, "MINIO_ROOT_PASSWORD="+storeSecret,
		"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_CALLHOME_ENABLE=off")
	out, err := os.Create(filepath.Join(dir, "store.txt"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &store{cmd: cmd, exited: make(chan struct{}), endpoint: "http://" + addr, ports: at}
	go func() { // ends with the process, which stop waits for
		_ = cmd.Wait()
		close(s.exited)
	}()
	for deadline := time.Now().Add(readyWithin); time.Now().Before(deadline); {
		if resp, err := http.Get(s.endpoint + health); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return s, nil
			}
		}
		select {
		case <-s.exited:
			text, _ := os.ReadFile(out.Name())
			return nil, fmt.Errorf("%s ended during its start: %s", kind, tail(string(text)))
		case <-time.After(pollEvery):
		}
	}
	s.stop()
	return nil, errors.New(kind + " was not ready in time")
}

func (s *store) stop() {
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.ports.Release()
}

// bucket is the place as --bucket takes it, seen through an endpoint.
func bucketURL(endpoint string) string {
	q := url.Values{"endpoint": {endpoint}, "path_style": {"true"}, "create_bucket": {"true"}}
	return "s3://torture/cold?" + q.Encode()
}

// moduleDir is the directory of the module integration.
func moduleDir() string {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "."
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// Build builds the program with these tags into dir.
func Build(dir string, tags ...string) (string, error) {
	program := filepath.Join(dir, "cicada-"+strings.Join(tags, "-"))
	cmd := exec.Command("go", "build", "-trimpath", "-tags", strings.Join(tags, ","), "-o", program,
		"./cmd/cicada")
	cmd.Dir = filepath.Dir(moduleDir())
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w: %s", err, out)
	}
	return program, nil
}
