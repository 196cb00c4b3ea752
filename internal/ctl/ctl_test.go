// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

var update = flag.Bool("update", false, "rewrite golden files")

// canned answers requests by "METHOD path?query", with a status line and a body.
type canned map[string]string

func (c canned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	key := r.Method + " " + r.URL.EscapedPath()
	if r.URL.RawQuery != "" {
		key += "?" + r.URL.RawQuery
	}
	for _, k := range []string{key + " " + strings.TrimSpace(string(body)), key} {
		if answer, ok := c[k]; ok {
			status := http.StatusOK
			if _, err := fmt.Sscanf(answer, "%d ", &status); err == nil {
				_, answer, _ = strings.Cut(answer, " ")
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
			return
		}
	}
	w.WriteHeader(http.StatusTeapot)
	fmt.Fprintf(w, `{"code":"test","message":"no answer for %s %s"}`, key,
		strings.ReplaceAll(string(body), `"`, `'`))
}

// world runs command lines and writes a transcript.
type world struct {
	t        *testing.T
	parts    Parts
	server   string
	env      map[string]string
	out      bytes.Buffer
	terminal bool
}

func newWorld(t *testing.T, answers canned) *world {
	t.Helper()
	srv := httptest.NewServer(answers)
	t.Cleanup(srv.Close)
	w := &world{t: t, server: srv.URL, env: map[string]string{
		"CICADA_SERVER": srv.URL, "XDG_CONFIG_HOME": t.TempDir(), "NO_COLOR": "1",
	}}
	w.parts = Parts{
		Version: "v0.0.0", Program: "/nonexistent",
		Env: func(name string) (string, bool) { v, ok := w.env[name]; return v, ok },
		Now: func() time.Time { return time.UnixMilli(1800000000000) },
		Daemon: Daemon{
			Flags: []Flag{
				{Name: "data-dir", Default: "./cicada-data", Help: "where data is kept"},
				{Name: "insecure-open", Help: "let everybody in", Bool: true},
				{Name: "webhook-allow", Help: "hosts", List: true},
			},
			Serve: func(_ context.Context, file string, flags map[string]string) error {
				fmt.Fprintf(&w.out, "(serve file=%q flags=%v)\n", file, flags)
				return nil
			},
			Check: func(file string) error {
				if file == "bad.yaml" {
					return errors.New("bad.yaml:3: tier.min_wait: not a duration")
				}
				return nil
			},
			Print: func(out io.Writer, _ string, flags map[string]string) error {
				_, err := fmt.Fprintf(out, "data_dir: %s\n", flags["data-dir"])
				return err
			},
			Places: func(_ string, flags map[string]string) (string, string, error) {
				return flags["data-dir"], "mem:", nil
			},
			Brokers: func(_ context.Context, file string) ([]broker.Finding, error) {
				if file == "bad.yaml" {
					return nil, errors.New("bad.yaml:3: brokers.main.seeds: is missing")
				}
				return []broker.Finding{
					{Check: "main: reachable", Verdict: broker.Good, Detail: "cluster c, 3 brokers"},
					{Check: "main: source orders", Verdict: broker.Bad, Detail: "no permission: READ"},
				}, nil
			},
		},
	}
	return w
}

// do runs one command line; words are split at blanks, ~ stands for one.
func (w *world) do(stdin, line string) int {
	var stdout, stderr bytes.Buffer
	w.parts.Stdin, w.parts.Stdout, w.parts.Stderr = strings.NewReader(stdin), &stdout, &stderr
	w.parts.OutTerminal = w.terminal
	var words []string
	for word := range strings.FieldsSeq(line) {
		words = append(words, strings.ReplaceAll(word, "~", " "))
	}
	fmt.Fprintf(&w.out, "$ cicada %s\n", line)
	status := Run(w.t.Context(), w.parts, words)
	w.out.Write(stdout.Bytes())
	for l := range strings.Lines(stderr.String()) {
		w.out.WriteString("! " + l)
	}
	if status != 0 {
		fmt.Fprintf(&w.out, "[exit %d]\n", status)
	}
	w.out.WriteString("\n")
	return status
}

func (w *world) golden(name string) {
	w.t.Helper()
	got := strings.ReplaceAll(w.out.String(), w.server, "http://SERVER")
	got = strings.ReplaceAll(got, w.env["XDG_CONFIG_HOME"], "$XDG")
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(w.t, os.MkdirAll("testdata", 0o755))
		require.NoError(w.t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(w.t, err)
	require.Equal(w.t, string(want), got)
}

const (
	oneMessage = `{"id":"o-1","state":"scheduled","due":"2027-01-15T08:00:00.000Z",` +
		`"due_ms":1800000000000,"attempts":0,"tier":"warm","target":"pull:orders","key":"k",` +
		`"headers":{"b":"2","a":"1"},"size":4,"generation":1}`
	twoMessages = `{"messages":[` + oneMessage + `,{"id":"o\u001b[2","state":"dead","size":0,` +
		`"attempts":3}],"next_page_token":"tok"}`
	statusReply = `{"version":"v1","accepting":true,"tiers":{"hot":{"messages":1,"bytes":2}},` +
		`"oldest_not_uploaded_seconds":1,"last_flush":"2027-01-15T07:59:59.000Z",` +
		`"disk":{"free_bytes":9000000000},"clock":{"now_ms":1800000000100,"held":false},` +
		`"books":{"accepted":6,"pending":1,"delivered":2,"suppressed":3}}`
)

// Scripts depend on what goes to stdout, on the exit status and on nothing else; each line of the
// golden file is a promise (C1, C2, C4).
func TestMessages(t *testing.T) {
	w := newWorld(t, canned{
		`POST /v1/messages {"body":"hi there","delay":"10s","id":"o-1","target":"pull:orders"}`: `{"id":"o-1","due":"D",` +
			`"due_ms":5,"durability":"local","duplicate":false,"generation":1,"state":"scheduled"}`,
		`POST /v1/messages {"body_base64":"/w==","deliver_at":"99999999999999","headers":{"a":"b=c"},"max_attempts":3,"replace":true,"target":"log:"}`: `{"id":"X",` +
			`"duplicate":true,"state":"scheduled","due":"D"}`,
		"POST /v1/messages":                                         `400 {"code":"invalid_argument","message":"unknown unit","field":"delay"}`,
		"GET /v1/messages/o-1":                                      oneMessage,
		"GET /v1/messages/o-1?body=true":                            `{"id":"o-1","state":"scheduled","size":2,"attempts":0,"body_base64":"/wo="}`,
		"GET /v1/messages/a%2Fb":                                    `404 {"code":"not_found","message":"no such message"}`,
		"GET /v1/messages?limit=100":                                twoMessages,
		"GET /v1/messages?limit=1&target=pull%3Aq":                  `{"messages":[]}`,
		"GET /v1/pending/next?limit=2":                              twoMessages,
		"GET /v1/pending/count":                                     `{"count":42}`,
		"GET /v1/pending/count?state=nonsense":                      `400 {"code":"invalid_argument","message":"unknown state","field":"state"}`,
		"GET /v1/pending/histogram?bucket=1h":                       `{"buckets":[{"from":"T1","from_ms":1,"count":4,"bytes":400,"hot":1,"warm":1,"cold":2},{"from":"T2","from_ms":2,"count":1,"bytes":9,"hot":0,"warm":0,"cold":1}]}`,
		"DELETE /v1/messages/o-1":                                   `{"id":"o-1","result":"CANCELLED","durability":"local"}`,
		"DELETE /v1/messages/late":                                  `409 {"id":"late","result":"TOO_LATE","code":"aborted","message":"claimed"}`,
		"DELETE /v1/messages/gone":                                  `404 {"id":"gone","result":"NOT_FOUND","code":"not_found","message":"no"}`,
		"DELETE /v1/messages/late?stop=true":                        `{"id":"late","result":"STOPPED","durability":"local"}`,
		`PATCH /v1/messages/o-1 {"delay":"2h"}`:                     `{"id":"o-1","result":"RESCHEDULED","due":"D","due_ms":1,"durability":"tier"}`,
		"POST /v1/messages/o-1/fire":                                `{"id":"o-1","result":"FIRED","due":"D","due_ms":1,"durability":"local"}`,
		`POST /v1/pending/purge {"dry_run":true,"target":"pull:q"}`: `{"count":7}`,
		`POST /v1/pending/purge {"target":"pull:q"}`:                `{"count":7}`,
	})
	w.do("", "send --target pull:orders --delay 10s --id o-1 hi~there")
	w.do("", "send --target pull:orders --delay 10s --id o-1 hi~there --json")
	w.do("\xff", "send --target log: --at 99999999999999 --header a=b=c --replace --max-attempts 3 -")
	w.do("", "send --target pull:orders --delay 10y x")
	w.do("", "send --delay 10s x")
	w.do("", "send --target log: --delay 10s --at 5 x")
	w.do("", "send --target log: --delay 1s --header x y")
	w.do("", "send --target log: --delay 1s @/nonexistent")
	w.do("", "get o-1")
	w.do("", "get o-1 -o id")
	w.do("", "get o-1 --json")
	w.do("", "get o-1 --body")
	w.do("", "get a/b")
	w.do("", "get")
	w.do("", "ls")
	w.do("", "ls -o jsonl")
	w.do("", "ls -o id")
	w.do("", "ls --target pull:q --limit 1")
	w.do("", "ls -o xml")
	w.do("", "next --limit 2")
	w.do("", "count")
	w.do("", "count --json")
	w.do("", "count --state nonsense")
	w.do("", "histogram")
	w.do("", "cancel o-1 late gone")
	w.do("", "cancel gone")
	w.do("", "cancel late --stop")
	w.do("", "reschedule o-1 --delay 2h")
	w.do("", "reschedule o-1")
	w.do("", "fire o-1 --json")
	w.do("", "purge --target pull:q")
	w.do("", "purge --target pull:q --dry-run")
	w.do("", "purge --target pull:q --yes")
	w.do("", "purge --yes --dry-run")
	w.terminal = true
	w.do("", "ls")
	w.do("", "histogram")
	w.do("", "get o-1")
	w.golden("messages.txt")
}

// What another broker holds must be told apart from what is too late, must not stop the other ids of
// the command, and be shown with where it waits; a second without room must be told apart from an
// overload (C1, C2).
func TestGuardedAndCrowded(t *testing.T) {
	const guarded = `{"id":"r-1","state":"scheduled","due":"D","due_ms":5,"attempts":0,"tier":"warm",` +
		`"target":"rocketmq:rmq/t","size":4,"generation":1,"guard":{"lane":"guard:rmq/broker-a","entry":"queue 3 at 7"}}`
	w := newWorld(t, canned{
		"DELETE /v1/messages/r-1":                     `409 {"code":"failed_precondition","message":"failed precondition: its broker holds it"}`,
		"DELETE /v1/messages/r-1?recall=true":         `{"id":"r-1","result":"REQUESTED"}`,
		"DELETE /v1/messages/o-1":                     `{"id":"o-1","result":"CANCELLED","durability":"local"}`,
		"GET /v1/messages/r-1":                        guarded,
		"GET /v1/messages?kind=guarded&limit=100":     `{"messages":[` + guarded + `]}`,
		"GET /v1/messages?limit=100&state=suppressed": `{"messages":[{"id":"r-2","state":"suppressed","size":0,"attempts":0}]}`,
		`POST /v1/messages {"body":"x","delay":"1s","target":"log:"}`: `{"id":"X","duplicate":false,` +
			`"state":"scheduled","due":"D","crowded":true,"suggested_at":"LATER","suggested_at_ms":9}`,
		`POST /v1/messages {"body":"y","delay":"1s","target":"log:"}`: `{"id":"Y","duplicate":false,"state":"scheduled","due":"D","crowded":true}`,
		`POST /v1/messages {"body":"x","delay":"1s","refuse_crowded":true,"target":"log:"}`: `429 {"code":"resource_exhausted",` +
			`"message":"crowded: log: has no room at D; there is some at LATER","result":"CROWDED","suggested_at":"LATER"}`,
		`POST /v1/messages {"body":"z","delay":"1s","refuse_crowded":true,"target":"log:"}`: `429 {"code":"resource_exhausted","message":"overloaded"}`,
	})
	w.do("", "cancel r-1 o-1")
	w.do("", "cancel r-1 --recall")
	w.do("", "cancel r-1 --recall --stop")
	w.do("", "get r-1")
	w.do("", "get r-1 --json")
	w.do("", "ls --guarded")
	w.do("", "ls --guarded --schedules")
	w.do("", "ls --state suppressed")
	w.do("", "send --target log: --delay 1s x")
	w.do("", "send --target log: --delay 1s x --json")
	w.do("", "send --target log: --delay 1s y")
	w.do("", "send --target log: --delay 1s --refuse-crowded x")
	w.do("", "send --target log: --delay 1s --refuse-crowded z")
	w.golden("guarded.txt")
}

// Without --yes nothing may be purged, whatever the filter (C3): only dry runs reach the daemon.
func TestPurgeAsks(t *testing.T) {
	w := newWorld(t, canned{
		`POST /v1/pending/purge {"dry_run":true,"target":"pull:q"}`: `{"count":7}`,
		"POST /v1/pending/purge":                                    `500 {"code":"internal","message":"purged!"}`,
	})
	require.Equal(t, exitUsage, w.do("", "purge --target pull:q"))
	require.Equal(t, exitOK, w.do("", "purge --target pull:q --dry-run"))
	require.NotContains(t, w.out.String(), "purged!")
}

// Lines of a stream are independent: one refused line must not hide the others or the failure.
func TestSendMany(t *testing.T) {
	w := newWorld(t, canned{
		"POST /v1/messages": `{"id":"a","due_ms":1}` + "\n" + `{"error":{"code":"invalid_argument",` +
			`"message":"no target","field":"target"}}` + "\n" + `{"id":"b","due_ms":1}` + "\n",
	})
	w.do("{}\n{}\n{}\n", "send --ndjson -")
	w.do("{}\n{}\n{}\n", "send --ndjson - -o jsonl")
	w.do("", "send --ndjson /nonexistent")
	w.do("", "send --ndjson - body")
	w.golden("sendmany.txt")
}

// A consumer's exit status tells whether its receipts were still good.
func TestQueues(t *testing.T) {
	w := newWorld(t, canned{
		`POST /v1/queues/orders/pull {"max":10,"wait":"5s","lease":"30s"}`: `{"messages":[{"id":"o-1","receipt":"R1",` +
			`"attempt":1,"due":"D","due_ms":5,"key":"k","body":"a\tb"}]}`,
		`POST /v1/queues/orders/ack {"receipts":["R1"]}`:                 `{"results":[{"receipt":"R1","result":"ACKED"}]}`,
		`POST /v1/queues/orders/ack {"receipts":["R1","R2"]}`:            `{"results":[{"receipt":"R1","result":"ACKED"},{"receipt":"R2","result":"SUPERSEDED"}]}`,
		`POST /v1/queues/orders/nack {"delay":"5s","receipts":["R1"]}`:   `{"results":[{"receipt":"R1","result":"NACKED"}]}`,
		`POST /v1/queues/orders/extend {"lease":"1m","receipts":["R1"]}`: `{"results":[{"receipt":"R1","result":"NOT_FOUND"}]}`,
		"GET /v1/dead-letters?limit=100":                                 `{"messages":[{"id":"d","state":"dead","reason":"rejected","due":"D","target":"http://x","last_error":"404","size":1,"attempts":2}]}`,
		"POST /v1/dead-letters/d/retry":                                  `{"id":"d"}`,
		"DELETE /v1/dead-letters/d":                                      `{}`,
		"DELETE /v1/dead-letters/x":                                      `404 {"code":"not_found","message":"no"}`,
		"GET /v1/targets":                                                `{"targets":[{"target":"pull:orders","in_flight":1,"backlog":2,"rate":3.25,"paused":true,"limit":{"rate":100,"burst":200}},{"target":"log:","open":true,"last_error":"oops"}]}`,
		`POST /v1/targets/pause {"target":"pull:orders"}`:                `{}`,
		`POST /v1/targets/resume {"target":"pull:orders"}`:               `{}`,
		`POST /v1/targets/limit {"burst":200,"rate":100,"target":"pull:orders"}`: `{"target":"pull:orders",` +
			`"limit":{"rate":100,"burst":200}}`,
		`POST /v1/targets/limit {"rate":0,"target":"pull:orders"}`: `{"target":"pull:orders"}`,
	})
	w.do("", "pull orders --max 10 --wait 5s --ack -o jsonl")
	w.do("", "pull orders --max 10 --wait 5s")
	w.do("", "ack orders R1 R2")
	w.do("", "ack orders")
	w.do("", "nack orders R1 --delay 5s")
	w.do("", "extend orders R1 --lease 1m")
	w.do("", "dlq ls")
	w.do("", "dlq retry d")
	w.do("", "dlq rm d x")
	w.do("", "dlq")
	w.do("", "targets")
	w.do("", "pause pull:orders")
	w.do("", "resume pull:orders")
	w.do("", "targets limit pull:orders --rate 100/s --burst 200")
	w.do("", "targets limit pull:orders --rate none")
	w.do("", "targets limit pull:orders --rate 100")
	w.do("", "targets limit pull:orders")
	w.golden("queues.txt")
}

// What an operator sees, and the commands around the daemon.
func TestOperate(t *testing.T) {
	w := newWorld(t, canned{
		"GET /v1/status":         statusReply,
		"GET /v1/tier":           tierReply,
		"GET /readyz":            "{}",
		"GET /v1/targets":        `{"targets":[{"target":"log:","open":true,"last_error":"oops"}]}`,
		"POST /v1/clock/confirm": "{}",
	})
	w.do("", "status")
	w.do("", "status --json")
	w.do("", "clock")
	w.do("", "clock confirm")
	w.do("", "clock confirm --yes")
	w.do("", "doctor")
	w.do("", "version")
	w.do("", "serve --data-dir=/x --insecure-open --webhook-allow a --webhook-allow b")
	w.do("", "serve extra")
	w.do("", "serve --nonsense")
	w.do("", "config check good.yaml")
	w.do("", "config check bad.yaml")
	w.do("", "config print --data-dir /y")
	w.do("", "frobnicate")
	w.do("", "context ls")
	w.do("", "context add prod --server prod.example.com:7170 --token secret")
	w.do("", "context add test --server ftp://x")
	w.do("", "context use prod")
	w.do("", "context use nobody")
	w.do("", "context ls")
	w.do("", "context rm prod")
	w.do("", "context ls --json")
	w.golden("operate.txt")
}

// A broker that is ill must be found by the doctor, with status 1, and a file that is wrong be told
// of.
func TestDoctorOfBrokers(t *testing.T) {
	w := newWorld(t, canned{})
	require.Equal(t, exitError, w.do("", "doctor --config cicada.yaml"))
	require.Equal(t, exitError, w.do("", "doctor --config bad.yaml"))
	w.golden("doctor_brokers.txt")
}

// A broken daemon must be found by the doctor, with status 1.
func TestDoctorFinds(t *testing.T) {
	w := newWorld(t, canned{
		"GET /v1/status": `{"version":"v1","accepting":true,"last_flush_error":"no route",` +
			`"disk":{"free_bytes":1000},"clock":{"now_ms":1800000009000},` +
			`"books":{"accepted":3,"pending":1,"delivered":1}}`,
		"GET /v1/tier": `503 {"code":"unavailable","message":"starting"}`,
		"GET /readyz":  `503 {"code":"unavailable","message":"draining"}`,
	})
	require.Equal(t, exitError, w.do("", "doctor"))
	w.golden("doctor.txt")
}

// The exit status of a refused token and of a missing daemon.
func TestDialing(t *testing.T) {
	w := newWorld(t, canned{
		"GET /v1/pending/count": `401 {"code":"unauthenticated","message":"unknown token"}`,
	})
	require.Equal(t, exitAuth, w.do("", "count"))
	require.Equal(t, exitError, w.do("", "count --server 127.0.0.1:1"))
	require.Equal(t, exitUsage, w.do("", "count --server ftp://x"))
	delete(w.env, "CICADA_SERVER")
	require.Equal(t, exitUsage, w.do("", "count --context nobody"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.parts.Stdin, w.parts.Stdout, w.parts.Stderr = strings.NewReader(""), io.Discard, io.Discard
	require.Equal(t, exitInterrupted, Run(ctx, w.parts, []string{"count", "--server", w.server}))
}

// keep lets the offline commands close the bucket without losing it.
type keep struct{ objstore.Bucket }

func (keep) Close() error { return nil }

// The offline commands must read what a daemon wrote, leave finished messages out, and fail on
// damage.
func TestTierOffline(t *testing.T) {
	w := newWorld(t, canned{})
	bucket := keep{memory.New(memory.Options{})}
	w.parts.Bucket = func(context.Context, string) (objstore.Bucket, error) { return bucket, nil }
	require.Equal(t, exitNotFound, w.do("", "tier ls"))

	tier, err := tiered.Open(t.Context(), bucket, tiered.Options{ClusterID: "c1", Now: w.parts.Now})
	require.NoError(t, err)
	_, err = tier.Take(t.Context(), [16]byte{1}, true)
	require.NoError(t, err)
	var rows []tiered.Row
	for i := range 3 {
		m := delay.Message{Target: "pull:q", Due: delay.Due(1800000000000 + i), Body: []byte("x"),
			Cold: true, Generation: 1}
		if i == 0 {
			m.ID = "mine"
		}
		rows = append(rows, tiered.Row{Key: delay.Key{Due: m.Due, Seq: delay.MakeSeq(1,
			uint64(i+1))}, Record: delay.AppendRecord(nil, &m)})
	}
	_, err = tier.Commit(t.Context(), tiered.Cut{Rows: rows, NotUploaded: 2, Marks: []delay.Mark{{
		Key: rows[1].Key, State: delay.Cancelled, At: 1}}})
	require.NoError(t, err)
	require.NoError(t, tier.Close())

	require.Equal(t, exitOK, w.do("", "tier verify"))
	require.Equal(t, exitOK, w.do("", "tier dump -o jsonl"))
	require.Equal(t, exitUsage, w.do("", "tier restore"))
	require.Equal(t, exitOK, w.do("", "tier restore --dry-run"))
	require.Contains(t, w.out.String(), "messages to come\t2")
	require.Contains(t, w.out.String(), `"id":"mine"`)
	require.Equal(t, 2, strings.Count(w.out.String(), `"target":"pull:q"`))

	var name string
	require.NoError(t, bucket.List(t.Context(), "", func(i objstore.Info) bool {
		if strings.HasSuffix(i.Key, ".seg") {
			name = i.Key
		}
		return true
	}))
	body, _, err := bucket.Get(t.Context(), name)
	require.NoError(t, err)
	body = bytes.Clone(body)
	body[len(body)/2] ^= 1
	_, err = bucket.Put(t.Context(), name, body, objstore.Condition{})
	require.NoError(t, err)
	require.Equal(t, exitError, w.do("", "tier verify"))
}

// The check must pass on a store that a daemon left, and must not create one.
func TestStoreCheck(t *testing.T) {
	w := newWorld(t, canned{})
	dir := filepath.Join(t.TempDir(), "store")
	require.Equal(t, exitError, w.do("", "store check --data-dir "+dir))
	_, err := os.Stat(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
	s, err := localstore.Open(localstore.OS(), dir, localstore.Options{})
	require.NoError(t, err)
	require.Equal(t, exitError, w.do("", "store check --data-dir "+dir), "it is locked")
	require.NoError(t, s.Close())
	require.Equal(t, exitOK, w.do("", "store check --data-dir "+dir))
}

// A typo in a number must not start a bench of another size.
func TestBenchArguments(t *testing.T) {
	w := newWorld(t, canned{})
	for _, line := range []string{
		"bench --messages 1.5", "bench --messages 0", "bench --messages x", "bench --due 5..1h",
		"bench --due 2h..1h", "bench --encoding xml", "bench --ids both", "bench --order up",
		"bench --spike 10 --rate 5", "bench --spike 10 --in 0s", "bench --batch 0", "bench what",
		"bench --single --encoding ndjson", "bench --size -1", "bench --connections 5000",
		"bench --server 127.0.0.1:1 -- --tier-min-wait 1s",
	} {
		require.Equal(t, exitUsage, w.do("", line), line)
	}
}

// The preview of a schedule needs no daemon, and says where the clocks change.
func TestScheduleNext(t *testing.T) {
	w := newWorld(t, canned{})
	w.terminal = true
	w.do("", "schedule next 30~2~*~*~* --tz Europe/Berlin --from 2026-03-27T12:00:00Z")
	w.terminal = false
	w.do("", "schedule next 30~*~*~*~* --tz Europe/Berlin --from 2026-10-25T00:00:00Z -n 3")
	w.do("", "schedule next @every~90m -n 2 --json")
	w.do("", "schedule next 0~0~29~2~* -n 1 --from 2096-03-01T00:00:00Z -o id")
	w.do("", "schedule next 0~9~*~*~8")
	w.do("", "schedule next 0~9~*~*~* --tz Europe/Berln")
	w.do("", "schedule next 0~9~*~*~* --from yesterday")
	w.do("", "schedule next 0~9~*~*~* -n 0")
	w.do("", "schedule next")
	w.golden("schedule.txt")
}
