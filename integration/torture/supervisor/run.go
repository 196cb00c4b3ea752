// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cicadamq/cicada/integration/ports"
	"github.com/cicadamq/cicada/integration/torture/client"
	"github.com/cicadamq/cicada/integration/torture/history"
	"github.com/cicadamq/cicada/integration/torture/proxy"
)

// Settings of the daemons: seconds show what takes days in production.
const (
	hookTimeout     = 2 * time.Second
	clockHold       = 3 * time.Second
	shutdownTimeout = 5 * time.Second
	hookWindow      = 50
	flushInterval   = 300 * time.Millisecond
)

// Options say what a run is.
type Options struct {
	For     time.Duration
	Seed    uint64
	Store   string // file, versity or minio
	Faults  []string
	Clients int
	Pause   time.Duration // of a client between its calls, on average
	Program string        // a build with the tag torture
	Env     []string      // of the daemon
	Self    []string      // this program: it is started as client and gateway
	Dir     string        // of everything; what is below is left behind
	// Progress is told what happens. It may be nil.
	Progress func(string)
}

// Result is one line of JSON.
type Result struct {
	Seed     uint64  `json:"seed"`
	Seconds  float64 `json:"seconds"`
	Store    string  `json:"store"`
	Faults   string  `json:"faults"`
	Proxy    string  `json:"proxy,omitempty"`
	Skipped  string  `json:"skipped,omitempty"`
	Notes    string  `json:"notes,omitempty"`
	Messages int64   `json:"messages"`
	history.Report
}

// run is one run.
type run struct {
	opts     Options
	rng      *rand.Rand
	log      *history.Log
	logs     string // directory of all logs
	base     string // file with the daemon's URL
	clocks   *os.File
	wall     time.Duration // ahead
	boot     time.Duration
	furthest time.Duration // that wall was
	hooks    *receivers
	store    *store
	net      *proxy.Proxy
	bucket   string // as the tools take it
	daemons  [2]*daemon
	now      int // the daemon that is meant to own the shard
	mount    string
	filler   string
	full     bool
	crew     []*crew
	hired    int
	skipped  []string
	notes    []string
	thawed   time.Time
	hurt     bool // the daemon may end by itself now
}

// crew is one client process.
type crew struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// Run tortures and judges. An error means that the run itself failed; broken promises are in the
// result.
func Run(ctx context.Context, opts Options) (Result, error) {
	r := &run{opts: opts, rng: rand.New(rand.NewPCG(opts.Seed, 1<<32))}
	began := time.Now()
	defer r.close()
	if err := r.open(); err != nil {
		return Result{}, err
	}
	if err := r.trouble(ctx); err != nil {
		return Result{}, err
	}
	r.settle(ctx)
	r.dismiss()
	events, err := history.Read(r.logs)
	if err != nil {
		return Result{}, err
	}
	report := history.Check(events, history.Options{
		Hold: clockHold, InFlight: int64(hookWindow * len(hookPaths)), Timeout: hookTimeout,
	})
	res := Result{
		Seed: opts.Seed, Seconds: time.Since(began).Seconds(), Store: opts.Store,
		Faults: strings.Join(opts.Faults, ","), Report: report, Messages: report.Counts["messages"],
		Skipped: strings.Join(r.skipped, "; "), Notes: strings.Join(r.notes, "; "),
	}
	if r.net != nil {
		res.Proxy = r.net.String()
	}
	return res, nil
}

func (r *run) has(fault string) bool { return slices.Contains(r.opts.Faults, fault) }

// daemon is the one that is meant to own the shard.
func (r *run) daemon() *daemon { return r.daemons[r.now] }

func (r *run) say(format string, args ...any) {
	if r.opts.Progress != nil {
		r.opts.Progress(fmt.Sprintf(format, args...))
	}
}

// fail notes what must not be.
func (r *run) fail(format string, args ...any) {
	r.say(format, args...)
	_, _ = r.log.Write(history.Event{What: history.Failed, Note: fmt.Sprintf(format, args...)})
}

func (r *run) open() (err error) {
	r.logs, r.base = filepath.Join(r.opts.Dir, "logs"), filepath.Join(r.opts.Dir, "daemon-url")
	if err := os.MkdirAll(r.logs, 0o755); err != nil {
		return err
	}
	if r.log, err = history.Create(r.logs, "supervisor"); err != nil {
		return err
	}
	if r.clocks, err = os.Create(filepath.Join(r.opts.Dir, "clocks")); err != nil {
		return err
	}
	if err := r.setClocks(0, 0); err != nil {
		return err
	}
	seen, err := history.Create(r.logs, "receivers")
	if err != nil {
		return err
	}
	r.hooks = startReceivers(seen, r.opts.Seed)
	if err := r.openBucket(); err != nil {
		return err
	}
	r.openDisk()
	for i := range r.daemons {
		if r.daemons[i], err = r.newDaemon(i); err != nil {
			return err
		}
	}
	if err := r.daemon().start(); err != nil {
		return err
	}
	if err := r.point(); err != nil {
		return err
	}
	for range r.opts.Clients {
		if err := r.hire(); err != nil {
			return err
		}
	}
	return nil
}

// openBucket starts the store and the proxy before it.
func (r *run) openBucket() (err error) {
	if r.opts.Store == "file" {
		r.bucket = "file://" + filepath.Join(r.opts.Dir, "bucket")
		return nil
	}
	if r.store, err = startStore(r.opts.Store, r.opts.Dir, r.opts.Self); err != nil {
		return err
	}
	r.net, err = proxy.To(r.store.endpoint, r.opts.Seed)
	if err != nil {
		return err
	}
	r.net.Kill = func() { r.daemons[r.now].kill() }
	r.bucket = bucketURL(r.store.endpoint)
	return nil
}

// openDisk mounts a small disk for the data directories.
func (r *run) openDisk() {
	if !r.has("disk") {
		return
	}
	dir := filepath.Join(r.opts.Dir, "disk")
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = mountSmall(dir)
	}
	if err != nil {
		r.skip("disk", fmt.Sprintf("a full disk needs a small file system: %v", err))
		return
	}
	r.mount, r.filler = dir, filepath.Join(dir, "filler")
}

func (r *run) skip(fault, why string) {
	r.skipped = append(r.skipped, fault+": "+why)
	r.opts.Faults = slices.DeleteFunc(slices.Clone(r.opts.Faults), func(f string) bool {
		return f == fault
	})
	r.say("left out: %s: %s", fault, why)
}

func (r *run) newDaemon(no int) (*daemon, error) {
	at, err := ports.Reserve(1)
	if err != nil {
		return nil, err
	}
	dir := r.opts.Dir
	if r.mount != "" {
		dir = r.mount
	}
	through := r.bucket
	if r.net != nil {
		through = bucketURL(r.net.URL())
	}
	d := &daemon{
		program: r.opts.Program, name: string(rune('a' + no)), url: "http://" + at.Addr(0), log: r.log,
		ports:   at,
		data:    filepath.Join(dir, "data-"+string(rune('a'+no))),
		logFile: filepath.Join(r.opts.Dir, "daemon-"+string(rune('a'+no))+".txt"),
		env:     cleanEnv(append(r.opts.Env, "CICADA_TORTURE_CLOCK="+r.clocks.Name())...),
		args: []string{
			"--bucket", through, "--tier-flush-interval", flushInterval.String(),
			"--tier-min-wait", "200ms", "--tier-collect-interval", "500ms", "--tier-delete-grace", "1s",
			"--local-hot-window", "1s", "--local-horizon", "2s", "--local-drop-lag", "200ms",
			"--webhook-allow", r.hooks.host(), "--webhooks-timeout", hookTimeout.String(),
			"--delivery-backoff", "50ms", "--delivery-max-backoff", "300ms",
			"--delivery-window", strconv.Itoa(hookWindow), "--clock-max-hold", clockHold.String(),
			"--shutdown-timeout", shutdownTimeout.String(), "--dedupe-window", "365d",
			"--dead-letters-retention", "365d",
		},
	}
	if r.has("stop") {
		d.args = append(d.args, "--tier-isolated", "stop")
	}
	if r.mount != "" {
		d.args = append(d.args, "--local-reserve", "32MiB")
	}
	return d, nil
}

// point tells the clients where the daemon is.
func (r *run) point() error {
	next := r.base + ".next"
	if err := os.WriteFile(next, []byte(r.daemon().url), 0o644); err != nil {
		return err
	}
	return os.Rename(next, r.base)
}

// hire starts one more client.
func (r *run) hire() error {
	r.hired++
	tier := 10
	if r.loses() {
		tier = 60
	}
	args := append(slices.Clone(r.opts.Self[1:]), "client", "-name", fmt.Sprintf("c%d", r.hired),
		"-seed", strconv.FormatUint(r.opts.Seed*1000+uint64(r.hired), 10), "-logs", r.logs,
		"-daemon", r.base, "-tier", strconv.Itoa(tier), "-pause", r.opts.Pause.String(),
		"-hooks", strings.Join(r.hooks.targets(), ","))
	cmd := exec.Command(r.opts.Self[0], args...)
	cmd.Stderr, cmd.Env = os.Stderr, cleanEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.crew = append(r.crew, &crew{cmd, stdin})
	return nil
}

// loses reports whether accepted local messages may be lost.
func (r *run) loses() bool { return r.has("restore") || r.has("stop") }

// dismiss lets the clients end.
func (r *run) dismiss() {
	for _, c := range r.crew {
		_ = c.stdin.Close()
	}
	for _, c := range r.crew {
		if err := c.cmd.Wait(); err != nil {
			r.fail("a client: %v", err)
		}
	}
	r.crew = nil
}

// setClocks steps the clocks of every daemon.
func (r *run) setClocks(wall, boot time.Duration) error {
	r.wall, r.boot, r.furthest = wall, boot, max(r.furthest, wall)
	var text [16]byte
	binary.NativeEndian.PutUint64(text[:8], uint64(wall))
	binary.NativeEndian.PutUint64(text[8:], uint64(boot))
	_, err := r.clocks.WriteAt(text[:], 0)
	if wall != 0 || boot != 0 || r.log != nil {
		_, _ = r.log.Write(history.Event{What: history.Step, Wall: int64(wall), Boot: int64(boot)})
	}
	return err
}

func (r *run) close() {
	for _, c := range r.crew {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
	for _, d := range r.daemons {
		if d != nil {
			d.kill()
			d.ports.Release()
		}
	}
	if r.net != nil {
		r.net.Close()
	}
	if r.store != nil {
		r.store.stop()
	}
	if r.hooks != nil {
		r.hooks.stop()
		_ = r.hooks.log.Close()
	}
	if r.mount != "" {
		unmount(r.mount)
	}
	if r.clocks != nil {
		_ = r.clocks.Close()
	}
	if r.log != nil {
		_ = r.log.Close()
	}
}

// api is the supervisor's own client.
func (r *run) api(name string) (*client.API, error) {
	log, err := history.Create(r.logs, name)
	if err != nil {
		return nil, err
	}
	return client.NewAPI(log, r.base), nil
}

var errNoFaults = errors.New("no fault is left to draw")
