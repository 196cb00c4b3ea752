// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startWithin bounds a start, and gone the end of a process, on a machine that is very busy.
const (
	startWithin = 60 * time.Second
	goneWithin  = 60 * time.Second
	pollEvery   = 10 * time.Millisecond
)

// quick are settings that show in seconds what takes minutes in production.
var quick = []string{
	"--tier-flush-interval", "500ms", "--tier-min-wait", "500ms", "--local-hot-window", "2s",
}

// daemon is a running `cicada serve`.
type daemon struct {
	t    testing.TB
	data string   // data directory
	args []string // of serve, without --data-dir and --listen
	log  string   // file that stderr of all starts goes to
	attr func(*syscall.SysProcAttr)
	env  []string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	base   atomic.Pointer[string]
	client *http.Client
}

// newDaemon prepares a daemon with an own data directory; start starts it.
func newDaemon(t testing.TB, args ...string) *daemon {
	t.Helper()
	dir := t.TempDir()
	return &daemon{
		t: t, data: filepath.Join(dir, "data"), args: args, log: filepath.Join(dir, "log"),
		client: newClient(),
	}
}

// newClient has its own connections: a test that kills a daemon disturbs no other.
func newClient() *http.Client {
	return &http.Client{
		Timeout:   90 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// cleanEnv is this process's environment without anything that configures the program: nothing of
// this machine's settings may reach it. The keys are those of the stores that tests start.
func cleanEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CICADA_") || strings.HasPrefix(v, "AWS_") ||
			strings.HasPrefix(v, "GOMEMLIMIT=")
	})
	return append(env, "AWS_ACCESS_KEY_ID="+storeKey, "AWS_SECRET_ACCESS_KEY="+storeSecret)
}

// serve starts a daemon that is stopped when the test ends.
func serve(t testing.TB, args ...string) *daemon {
	t.Helper()
	d := newDaemon(t, args...)
	d.start()
	t.Cleanup(d.kill)
	return d
}

// launch starts the process without waiting for it to be ready.
func (d *daemon) launch(args ...string) *exec.Cmd {
	d.t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(d.t, err)
	defer log.Close()
	all := slices.Concat([]string{"serve", "--data-dir", d.data, "--listen", "127.0.0.1:0",
		"--log-format", "json"}, d.args, args)
	cmd := exec.Command(program, all...)
	cmd.Stderr, cmd.Dir = log, filepath.Dir(d.log)
	cmd.Env = append(cleanEnv(), d.env...)
	cmd.SysProcAttr = childAttr()
	if d.attr != nil {
		d.attr(cmd.SysProcAttr)
	}
	require.NoError(d.t, cmd.Start())
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	d.mu.Lock()
	d.cmd, d.exited = cmd, exited
	d.mu.Unlock()
	return cmd
}

// start starts the daemon and waits until it is ready.
func (d *daemon) start(args ...string) {
	d.t.Helper()
	require.NoError(d.t, d.tryStart(args...))
}

func (d *daemon) tryStart(args ...string) error {
	from := d.logSize()
	d.launch(args...)
	for deadline := time.Now().Add(startWithin); time.Now().Before(deadline); time.Sleep(pollEvery) {
		if addr := d.readyLine(from); addr != "" {
			base := "http://" + addr
			d.base.Store(&base)
			if d.try("GET", "/readyz", nil).status == http.StatusOK {
				return nil
			}
		}
		select {
		case <-d.gone():
			return fmt.Errorf("the daemon ended during its start: %s", d.logFrom(from))
		default:
		}
	}
	return fmt.Errorf("the daemon was not ready in time: %s", d.logFrom(from))
}

func (d *daemon) gone() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.exited
}

// readyLine is the address in the log line `ready`.
func (d *daemon) readyLine(from int64) string {
	for line := range strings.Lines(d.logFrom(from)) {
		var entry struct{ Msg, Listen string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "ready" {
			return entry.Listen
		}
	}
	return ""
}

func (d *daemon) logSize() int64 {
	info, err := os.Stat(d.log)
	if err != nil {
		return 0
	}
	return info.Size()
}

// logFrom is what was logged since the log had this size.
func (d *daemon) logFrom(from int64) string {
	body, err := os.ReadFile(d.log)
	if err != nil || int64(len(body)) < from {
		return ""
	}
	return string(body[from:])
}

// kill ends the process as a crash does and waits until it is gone.
func (d *daemon) kill() {
	d.mu.Lock()
	cmd, exited := d.cmd, d.exited
	d.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill()
	<-exited
	d.client.CloseIdleConnections()
}

// term sends SIGTERM.
func (d *daemon) term() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	require.NoError(d.t, d.cmd.Process.Signal(syscall.SIGTERM))
}

// wait waits for the end and returns the exit status, -1 when a signal ended the process.
func (d *daemon) wait() int {
	d.t.Helper()
	select {
	case <-d.gone():
	case <-time.After(goneWithin):
		require.FailNow(d.t, "the daemon does not end", d.logFrom(0))
	}
	d.client.CloseIdleConnections()
	return d.cmd.ProcessState.ExitCode()
}

// stop drains the daemon; it must exit with 0.
func (d *daemon) stop() {
	d.t.Helper()
	d.term()
	require.Equal(d.t, 0, d.wait(), "exit status after SIGTERM; log:\n%s", d.logFrom(0))
}

// storeDir is the local store inside the data directory: everything but the bucket.
func (d *daemon) loseDisk() {
	d.t.Helper()
	entries, err := os.ReadDir(d.data)
	require.NoError(d.t, err)
	for _, e := range entries {
		if e.Name() != "bucket" {
			require.NoError(d.t, os.RemoveAll(filepath.Join(d.data, e.Name())))
		}
	}
}

// reply is the answer of a call; err is set when there is none.
type reply struct {
	err    error
	status int
	header http.Header
	body   []byte
}

func (r reply) String() string {
	if r.err != nil {
		return "no answer: " + r.err.Error()
	}
	return fmt.Sprintf("%d %s", r.status, r.body)
}

// call makes a call that must be answered. A body that is a string or bytes is sent as it is,
// anything else as JSON.
func (d *daemon) call(method, path string, body any) reply {
	d.t.Helper()
	r := d.try(method, path, body)
	require.NoError(d.t, r.err, "%s %s; log:\n%s", method, path, tail(d.logFrom(0)))
	return r
}

func tail(s string) string { return s[max(0, len(s)-3000):] }

// try makes a call whose answer may be lost.
func (d *daemon) try(method, path string, body any) reply {
	req, err := http.NewRequest(method, *d.base.Load()+path, reader(body))
	if err != nil {
		return reply{err: err}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return d.do(req)
}

func (d *daemon) do(req *http.Request) reply {
	resp, err := d.client.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	return reply{err: err, status: resp.StatusCode, header: resp.Header, body: out}
}

func reader(body any) io.Reader {
	switch b := body.(type) {
	case nil:
		return nil
	case string:
		return strings.NewReader(b)
	case []byte:
		return bytes.NewReader(b)
	case io.Reader:
		return b
	}
	out, err := json.Marshal(body)
	if err != nil {
		panic("BUG: a body that is no JSON: " + err.Error())
	}
	return bytes.NewReader(out)
}

// obj is a JSON object.
type obj = map[string]any

// ok reads the answer of a call that must have succeeded.
func (r reply) ok(t testing.TB) obj {
	t.Helper()
	require.NoError(t, r.err)
	require.Equal(t, http.StatusOK, r.status, "%s", r.body)
	return r.object(t)
}

func (r reply) object(t testing.TB) obj {
	t.Helper()
	require.NoError(t, r.err)
	require.Contains(t, r.header.Get("Content-Type"), "application/json", "%s", r)
	var o obj
	dec := json.NewDecoder(bytes.NewReader(r.body))
	dec.UseNumber()
	require.NoError(t, dec.Decode(&o), "%s", r.body)
	return o
}

// refused checks an error's status, code and field.
func (r reply) refused(t testing.TB, status int, code, field string) obj {
	t.Helper()
	require.NoError(t, r.err)
	require.Equal(t, status, r.status, "%s", r.body)
	o := r.object(t)
	if code != "" {
		require.Equal(t, code, o["code"], "%s", r.body)
	}
	require.NotEmpty(t, o["message"], "%s", r.body)
	if field != "" {
		require.Equal(t, field, o["field"], "%s", r.body)
	}
	return o
}

// num is an integer of a JSON object.
func num(t testing.TB, o obj, key string) int64 {
	t.Helper()
	n, ok := o[key].(json.Number)
	require.True(t, ok, "%s in %v", key, o)
	v, err := n.Int64()
	require.NoError(t, err, "%s in %v", key, o)
	return v
}

func sub(t testing.TB, o obj, key string) obj {
	t.Helper()
	v, ok := o[key].(obj)
	require.True(t, ok, "%s in %v", key, o)
	return v
}

func list(t testing.TB, o obj, key string) []obj {
	t.Helper()
	raw, ok := o[key].([]any)
	require.True(t, ok, "%s in %v", key, o)
	out := make([]obj, len(raw))
	for i, v := range raw {
		out[i], ok = v.(obj)
		require.True(t, ok, "%s[%d] in %v", key, i, o)
	}
	return out
}

func text(o obj, key string) string { s, _ := o[key].(string); return s }

// hasKeys checks that an object has these keys; more are allowed.
func hasKeys(t testing.TB, o obj, keys ...string) {
	t.Helper()
	have := slices.Sorted(maps.Keys(o))
	require.Subset(t, have, keys)
}

// send sends one message that must be accepted.
func (d *daemon) send(m obj) obj {
	d.t.Helper()
	return d.call("POST", "/v1/messages", m).ok(d.t)
}

// path is the path of a message, its id percent-encoded.
func path(id string) string {
	return "/v1/messages/" + strings.ReplaceAll(url.QueryEscape(id), "+", "%20")
}

func (d *daemon) get(id string) obj {
	d.t.Helper()
	return d.call("GET", path(id), nil).ok(d.t)
}

func (d *daemon) state(id string) string {
	d.t.Helper()
	r := d.call("GET", path(id), nil)
	if r.status == http.StatusNotFound {
		return "not_found"
	}
	return text(r.ok(d.t), "state")
}

// pull leases messages.
func (d *daemon) pull(queue string, req obj) []obj {
	d.t.Helper()
	return list(d.t, d.call("POST", "/v1/queues/"+queue+"/pull", req).ok(d.t), "messages")
}

// pullOne leases exactly one message.
func (d *daemon) pullOne(queue string, req obj) obj {
	d.t.Helper()
	if req["wait"] == nil {
		req["wait"] = "20s"
	}
	got := d.pull(queue, req)
	require.Len(d.t, got, 1)
	return got[0]
}

// settle acks, nacks or extends and returns the results by receipt.
func (d *daemon) settle(queue, what string, req obj) map[string]string {
	d.t.Helper()
	out := map[string]string{}
	for _, r := range list(d.t, d.call("POST", "/v1/queues/"+queue+"/"+what, req).ok(d.t), "results") {
		out[text(r, "receipt")] = text(r, "result")
	}
	return out
}

func (d *daemon) ack(queue string, receipts ...string) map[string]string {
	d.t.Helper()
	return d.settle(queue, "ack", obj{"receipts": receipts})
}

func (d *daemon) count(filter string) int64 {
	d.t.Helper()
	return num(d.t, d.call("GET", "/v1/pending/count?"+filter, nil).ok(d.t), "count")
}

func (d *daemon) books() map[string]int64 {
	d.t.Helper()
	b := sub(d.t, d.call("GET", "/v1/status", nil).ok(d.t), "books")
	out := map[string]int64{}
	for k := range b {
		out[k] = num(d.t, b, k)
	}
	return out
}

// flushed waits until the bucket holds everything that was synced before the call: of two flushes
// that end after it, the second one began after it.
func (d *daemon) flushed() {
	d.t.Helper()
	last := func() string { return text(d.call("GET", "/v1/status", nil).ok(d.t), "last_flush") }
	for range 2 {
		before := last()
		eventually(d.t, "a flush ends", func() bool { return last() != before })
	}
}

// unfinishedFlushed waits until the bucket also holds what is due and unfinished (R5): the watermark
// passes it when it is parked, some ten seconds after its due, and a flush follows.
func (d *daemon) unfinishedFlushed() {
	d.t.Helper()
	asked := time.Now().UnixMilli()
	eventually(d.t, "what is unfinished is parked", func() bool {
		return num(d.t, d.call("GET", "/v1/status", nil).ok(d.t), "watermark_ms") > asked
	})
	d.flushed()
}

// balanced checks S10.
func balanced(t testing.TB, b map[string]int64) {
	t.Helper()
	sum := b["pending"] + b["delivered"] + b["cancelled"] + b["expired"] + b["dead"] +
		b["lost_with_disk"] + b["cancelling"] + b["suppressed"]
	require.Equal(t, b["accepted"], sum, "the books do not balance: %v", b)
}

// eventually polls until f is true. It bounds the worst case; it usually ends at once.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if f() {
			return
		}
		time.Sleep(pollEvery)
	}
	require.FailNow(t, "never happened: "+what)
}

// cli runs the program to its end.
type cliResult struct {
	out, err string
	code     int
}

func (r cliResult) String() string {
	return fmt.Sprintf("exit status %d\nstdout: %s\nstderr: %s", r.code, r.out, r.err)
}

// cliRun describes a run of the command line.
type cliRun struct {
	dir   string
	stdin string
	env   []string
	attr  func(*syscall.SysProcAttr)
}

func (c cliRun) run(t testing.TB, args ...string) cliResult {
	t.Helper()
	if c.dir == "" {
		c.dir = t.TempDir()
	}
	cmd := exec.Command(program, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.stdin), &out, &errs
	cmd.Dir = c.dir
	cmd.Env = append(cleanEnv(), "HOME="+c.dir, "XDG_CONFIG_HOME="+c.dir)
	cmd.Env = append(cmd.Env, c.env...)
	cmd.SysProcAttr = childAttr()
	if c.attr != nil {
		c.attr(cmd.SysProcAttr)
	}
	require.NoError(t, cmd.Start())
	timer := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return cliResult{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// shared is one daemon for all tests that only talk to its API, each with queues of its own.
var shared struct {
	once sync.Once
	d    *daemon
	dir  string
	err  error
}

func api(t *testing.T) *daemon {
	t.Helper()
	shared.once.Do(func() {
		shared.dir, shared.err = os.MkdirTemp("", "cicada-shared-")
		if shared.err != nil {
			return
		}
		shared.d = &daemon{
			t: t, data: filepath.Join(shared.dir, "data"), log: filepath.Join(shared.dir, "log"),
			args: quick, client: newClient(),
		}
		shared.err = shared.d.tryStart()
	})
	require.NoError(t, shared.err)
	own := &daemon{t: t, log: shared.d.log, client: newClient()}
	own.base.Store(shared.d.base.Load())
	t.Cleanup(own.client.CloseIdleConnections)
	return own
}

func closeShared() {
	if shared.d != nil {
		shared.d.kill()
		_ = os.RemoveAll(shared.dir)
	}
}

// names holds the queue of each running test, and how often a test of its name has run: with
// -count the shared daemon lives on.
var names struct {
	sync.Mutex
	of   map[*testing.T]string
	runs map[string]int
}

// queue is a name that no other test uses, the same for all of one test.
func queue(t *testing.T) string {
	names.Lock()
	defer names.Unlock()
	if name, ok := names.of[t]; ok {
		return name
	}
	if names.of == nil {
		names.of, names.runs = map[*testing.T]string{}, map[string]int{}
	}
	name := strings.NewReplacer("/", ".", " ", "_", "#", "_").Replace(t.Name())
	if names.runs[name]++; names.runs[name] > 1 {
		name += fmt.Sprint(".run", names.runs[name])
	}
	names.of[t] = name
	return name
}
