// SPDX-License-Identifier: Apache-2.0

package exam

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cicadamq/cicada/internal/planted"
)

// Bounds of a run.
const (
	// Seeds is within how many seeds the simulation must find a mistake.
	Seeds = 2000
	// patience is how long a guard may take: a mistake may make it wait for ever.
	patience = 5 * time.Minute
)

// Run plants mistakes.
type Run struct {
	Root  string           // of the repository
	Work  string           // a directory for what is built
	Go    string           // the command
	Jobs  int              // guards at the same time
	Out   io.Writer        // a line for each guard
	Now   func() time.Time // for measuring
	Quick bool             // only the mistakes that the simulation finds soonest
	Only  string           // only mistakes and guards whose words hold one of these, with commas

	built  map[string]string // package: its test binary
	proved map[Guard]error   // what a test says without a mistake
}

// quickOnes is how many mistakes a quick run plants.
const quickOnes = 12

// job is a mistake and one of its guards.
type job struct {
	mistake Mistake
	guard   Guard
}

// All runs the exam and returns what the guards said. The error says which mistakes were not found.
func (r *Run) All(ctx context.Context, before []Finding) ([]Finding, error) {
	jobs := r.jobs(before)
	if err := r.build(ctx, jobs); err != nil {
		return nil, err
	}
	findings := make([]Finding, len(jobs))
	var wg sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, max(1, r.Jobs))
	for i, j := range jobs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f, why := r.try(ctx, j)
			mu.Lock()
			defer mu.Unlock()
			findings[i] = f
			fmt.Fprintln(r.Out, Line(&f)+why)
		})
	}
	wg.Wait()
	var bad []error
	for i := range findings {
		if findings[i].Said == "" {
			bad = append(bad, fmt.Errorf("%s: not found by %s", findings[i].Mistake, findings[i].Guard))
		}
	}
	return findings, errors.Join(bad...)
}

// Line is a finding in a line.
func Line(f *Finding) string {
	what := f.Said
	switch {
	case f.Said == "":
		what = "NOT FOUND: "
	case f.Seed > 0:
		what = fmt.Sprintf("seed %d: %s", f.Seed, f.Said)
	}
	return fmt.Sprintf("%-40s %-24.24s %5.1fs  %.120s", f.Mistake, f.Guard, f.Seconds, what)
}

// jobs are the mistakes to plant.
func (r *Run) jobs(before []Finding) (jobs []job) {
	for _, m := range Mistakes() {
		for _, g := range m.Guards {
			words := m.Bug.String() + "\n" + string(g)
			if slices.ContainsFunc(strings.Split(r.Only, ","), func(part string) bool {
				return strings.Contains(words, part)
			}) {
				jobs = append(jobs, job{m, g})
			}
		}
	}
	if !r.Quick {
		return jobs
	}
	took := func(j job) float64 {
		i := slices.IndexFunc(before, func(f Finding) bool {
			return f.Mistake == j.mistake.Bug.String() && f.Guard == j.guard && f.Seed > 0
		})
		if i < 0 {
			return patience.Seconds()
		}
		return before[i].Seconds
	}
	slices.SortStableFunc(jobs, func(a, b job) int { return int(1000 * (took(a) - took(b))) })
	return jobs[:min(len(jobs), quickOnes)]
}

// dirOf is the directory of the package that guards.
func dirOf(g Guard) string {
	if dir, _ := g.Test(); dir != "" {
		return dir
	}
	return "internal/sim"
}

// build makes a test binary of every package that guards, and runs each test without a mistake.
func (r *Run) build(ctx context.Context, jobs []job) error {
	r.built, r.proved = make(map[string]string), make(map[Guard]error)
	for _, j := range jobs {
		dir := dirOf(j.guard)
		if r.built[dir] == "" {
			path := filepath.Join(r.Work, strings.ReplaceAll(dir, "/", "_")+".test")
			cmd := exec.CommandContext(ctx, r.Go, "test", "-vet=off", "-tags", "exam", "-c", "-o", path,
				".")
			cmd.Dir = filepath.Join(r.Root, dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("build the tests of %s: %w\n%s", dir, err, out)
			}
			r.built[dir] = path
		}
		if _, name := j.guard.Test(); name == "" {
			continue
		}
		if _, done := r.proved[j.guard]; !done {
			out, err := r.test(ctx, j.guard, planted.None)
			r.proved[j.guard] = err
			if err != nil {
				fmt.Fprintf(r.Out, "%s fails without a mistake: %s\n", j.guard, reason(out))
			}
		}
	}
	return nil
}

// test runs what guards with a mistake.
func (r *Run) test(ctx context.Context, g Guard, bug planted.Bug) (string, error) {
	dir := dirOf(g)
	args := []string{"-test.timeout", patience.String()}
	if profile, sim := g.Profile(); sim {
		args = append(args, "-test.v", "-test.run", "^TestExam$", "-sim.profile", profile,
			"-sim.exam", strconv.Itoa(Seeds))
	} else {
		_, name := g.Test()
		args = append(args, "-test.run", "^"+strings.ReplaceAll(name, "/", "$/^")+"$")
	}
	cmd := exec.CommandContext(ctx, r.built[dir], args...)
	cmd.Dir = filepath.Join(r.Root, dir)
	cmd.Env = os.Environ()
	if bug != planted.None {
		cmd.Env = append(cmd.Env, "CICADA_PLANTED="+strconv.Itoa(int(bug)))
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// try plants a mistake and says what its guard did, and why it found nothing.
func (r *Run) try(ctx context.Context, j job) (f Finding, why string) {
	f = Finding{Mistake: j.mistake.Bug.String(), Guard: j.guard}
	start := r.Now()
	out, err := r.test(ctx, j.guard, j.mistake.Bug)
	f.Seconds = float64(r.Now().Sub(start)/(100*time.Millisecond)) / 10
	if _, sim := j.guard.Profile(); sim {
		f.Seed, f.Said = seedOf(out)
	} else if err != nil && r.proved[j.guard] == nil && ctx.Err() == nil {
		f.Said = reason(out)
	}
	if f.Said == "" {
		return f, fmt.Sprintf("%v: %s", err, reason(out))
	}
	return f, ""
}

// seedOf reads what the exam of the simulation printed.
func seedOf(out string) (seed uint64, said string) {
	m := regexp.MustCompile(`found by seed (\d+): (.+)`).FindStringSubmatch(out)
	if m == nil {
		return 0, ""
	}
	seed, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		return 0, ""
	}
	return seed, strings.TrimSpace(m[2])
}

// reason is why a test failed, in a line.
func reason(out string) string {
	if _, after, ok := strings.Cut(out, "Error:"); ok {
		said, _, _ := strings.Cut(after, "Test:")
		if _, messages, ok := strings.Cut(after, "Messages:"); ok {
			messages, _, _ = strings.Cut(messages, "\n")
			said = strings.TrimSpace(said) + ": " + messages
		}
		return shortened(said)
	}
	for _, sign := range [...]string{"panic: ", "_test.go:", "--- FAIL", "FAIL"} {
		if i := strings.Index(out, sign); i >= 0 {
			said, _, _ := strings.Cut(out[i:], "\n")
			return shortened(strings.TrimPrefix(said, "_test.go:"))
		}
	}
	return "it failed and said nothing"
}

// saidMost bounds what a finding quotes.
const saidMost = 200

// shortened makes s one short line, without what differs from run to run.
func shortened(s string) string {
	s = regexp.MustCompile(`0x[0-9a-f]{6,}`).ReplaceAllString(s, "0x…")
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > saidMost {
		s = strings.ToValidUTF8(s[:saidMost], "")
	}
	return s
}
