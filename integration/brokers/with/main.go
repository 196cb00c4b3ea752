// SPDX-License-Identifier: Apache-2.0

// Command with runs a command with real brokers at hand, which start when the command asks for
// them and end with it:
//
//	cd integration && go run ./brokers/with go test -C .. -run TestReal ./broker/...
//
// Without a command it serves until it is interrupted, and prints the variable to set.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/cicadamq/cicada/integration/brokers"
)

func main() {
	brokers.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "with:", err)
	}
	os.Exit(code)
}

// run serves a park in a directory of its own, and returns the status of the command.
func run(ctx context.Context, args []string) (int, error) {
	dir, err := os.MkdirTemp("", "cicada-brokers-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	park := brokers.NewPark(dir)
	defer park.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 1, err
	}
	s := &http.Server{Handler: park, ReadHeaderTimeout: time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	defer func() {
		_ = s.Close()
		<-served
	}()
	variable := brokers.Variable + "=http://" + l.Addr().String()
	if len(args) == 0 {
		fmt.Println(variable)
		<-ctx.Done()
		return 0, nil
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Env = append(os.Environ(), variable)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}
