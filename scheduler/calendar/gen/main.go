// SPDX-License-Identifier: Apache-2.0

// Command gen copies the tz database of the Go toolchain, with its version, to where package
// calendar embeds it. The data is in the public domain.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run() error {
	root, err := exec.CommandContext(context.Background(), "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	from := filepath.Join(strings.TrimSpace(string(root)), "lib", "time")
	script, err := os.ReadFile(filepath.Join(from, "update.bash"))
	if err != nil {
		return err
	}
	found := regexp.MustCompile(`(?m)^DATA=(\w+)$`).FindSubmatch(script)
	if found == nil {
		return fmt.Errorf("%s/update.bash: has no DATA=version", from)
	}
	zones, err := os.ReadFile(filepath.Join(from, "zoneinfo.zip"))
	if err != nil {
		return err
	}
	if err := os.WriteFile("tzdata/zoneinfo.zip", zones, 0o644); err != nil {
		return err
	}
	return os.WriteFile("tzdata/VERSION", append(found[1], '\n'), 0o644)
}
