// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/cicadamq/cicada/integration/torture/history"
)

// lostPause is how long a caller waits when there was no answer: nobody may be there.
const lostPause = 20 * time.Millisecond

// callWithin is when a client gives up: a daemon may be stopped in the middle of a call.
const callWithin = 8 * time.Second

// API calls a daemon and writes it down. It is safe for concurrent use.
type API struct {
	log  *history.Log
	file string // holds the daemon's URL
	http *http.Client
}

// NewAPI makes calls to the daemon whose URL is in a file.
func NewAPI(log *history.Log, file string) *API {
	return &API{log: log, file: file, http: &http.Client{
		Timeout:   callWithin,
		Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true},
	}}
}

type object = map[string]any

// answer is a reply; without one the status is 0.
type answer struct {
	status int
	body   object
	lines  []object // of NDJSON
}

// open reports whether it is unknown what was done.
func (a answer) open() bool { return a.status == 0 || a.status >= 500 }

// daemon is where the daemon is now.
func (a *API) daemon() string {
	text, err := os.ReadFile(a.file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (a *API) do(daemon, method, path string, body any, lines bool) answer {
	var in io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case []byte:
		in, kind = bytes.NewReader(b), "application/x-ndjson"
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return answer{status: http.StatusBadRequest, body: object{"message": err.Error()}}
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, daemon+path, in)
	if err != nil {
		return answer{}
	}
	if in != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		time.Sleep(lostPause)
		return answer{}
	}
	defer resp.Body.Close()
	out := answer{status: resp.StatusCode}
	dec := json.NewDecoder(resp.Body)
	dec.UseNumber()
	for {
		var o object
		err := dec.Decode(&o)
		if err == io.EOF {
			break
		}
		if err != nil {
			if lines {
				return out // the lines before hold
			}
			return answer{}
		}
		out.lines = append(out.lines, o)
	}
	if len(out.lines) > 0 {
		out.body = out.lines[0]
	}
	return out
}

func number(o object, key string) int64 {
	n, _ := o[key].(json.Number)
	v, err := n.Int64()
	if err != nil {
		return 0
	}
	return v
}

func text(o object, key string) string { s, _ := o[key].(string); return s }

// Path is the path of a message.
func Path(id string) string { return "/v1/messages/" + url.PathEscape(id) }

// begin writes calls down and numbers them.
func (a *API) begin(calls []history.Event) error {
	for i := range calls {
		calls[i].Op = a.log.Op()
	}
	_, err := a.log.Write(calls...)
	return err
}

// end writes answers down; each joins its call.
func (a *API) end(calls, answers []history.Event) error {
	for i := range answers {
		answers[i].Op, answers[i].What, answers[i].End = calls[i].Op, calls[i].What, true
		answers[i].ID = calls[i].ID
	}
	_, err := a.log.Write(answers...)
	return err
}

// Form is how messages are sent.
type Form int

// The forms.
const (
	Single Form = iota
	Batch
	Lines
)

func wire(m history.Event) object {
	o := object{"id": m.ID, "target": m.Target, "body": m.Body, "backoff": "50ms"}
	if m.Delay > 0 {
		o["delay"] = m.Delay
	} else {
		o["deliver_at"] = m.Due
	}
	if m.TTL > 0 {
		o["ttl"] = m.TTL
	}
	if m.Max > 0 {
		o["max_attempts"] = m.Max
	}
	if m.Replace {
		o["replace"] = true
	}
	if m.Tier {
		o["durability"] = "tier"
	}
	return o
}

// Send sends messages, described as the calls that they are.
func (a *API) Send(form Form, calls []history.Event) ([]history.Event, error) {
	daemon := a.daemon()
	for i := range calls {
		calls[i].What, calls[i].Daemon = history.Send, daemon
	}
	if err := a.begin(calls); err != nil {
		return nil, err
	}
	var r answer
	var results []object
	switch form {
	case Single:
		r = a.do(daemon, "POST", "/v1/messages", wire(calls[0]), false)
		results = []object{r.body}
	case Batch:
		var all []object
		for _, c := range calls {
			all = append(all, wire(c))
		}
		r = a.do(daemon, "POST", "/v1/messages", object{"messages": all}, false)
		list, _ := r.body["results"].([]any)
		for _, v := range list {
			o, _ := v.(object)
			results = append(results, o)
		}
	case Lines:
		var all bytes.Buffer
		enc := json.NewEncoder(&all)
		for _, c := range calls {
			if err := enc.Encode(wire(c)); err != nil {
				return nil, err
			}
		}
		r = a.do(daemon, "POST", "/v1/messages", all.Bytes(), true)
		results = r.lines
	}
	answers := make([]history.Event, len(calls))
	for i := range answers {
		if r.open() || i >= len(results) && r.status == http.StatusOK {
			answers[i] = history.Event{Answer: history.Unknown, Note: fmt.Sprint(r.status)}
			continue
		}
		var o object
		if i < len(results) {
			o = results[i]
		}
		answers[i] = sent(r, o)
	}
	return answers, a.end(calls, answers)
}

// sent is what one result of a send says.
func sent(r answer, o object) history.Event {
	fault := o
	if e, ok := o["error"].(object); ok {
		fault = e
	} else if r.status == http.StatusOK {
		dup, _ := o["duplicate"].(bool)
		return history.Event{
			Answer: history.OK, Due: number(o, "due_ms"), Duplicate: dup, Gen: number(o, "generation"),
			State: text(o, "state"), Tier: text(o, "durability") == "tier",
		}
	}
	e := history.Event{Note: fmt.Sprint(r.status, " ", fault)}
	switch text(fault, "code") {
	case "already_exists":
		e.Answer = "ALREADY_EXISTS"
	case "failed_precondition", "aborted":
		e.Answer = "TOO_LATE"
	case "resource_exhausted", "invalid_argument", "out_of_range":
		e.Answer = history.Refused
	default:
		e.Answer = history.Unknown
	}
	return e
}

// Change cancels, stops, moves, fires, looks at or retries a message.
func (a *API) Change(c history.Event) (history.Event, error) {
	c.Daemon = a.daemon()
	calls := []history.Event{c}
	if err := a.begin(calls); err != nil {
		return history.Event{}, err
	}
	var r answer
	switch c.What {
	case history.Cancel:
		r = a.do(c.Daemon, "DELETE", Path(c.ID), nil, false)
	case history.Stop:
		r = a.do(c.Daemon, "DELETE", Path(c.ID)+"?stop=true", nil, false)
	case history.Patch:
		r = a.do(c.Daemon, "PATCH", Path(c.ID), object{"deliver_at": c.Due}, false)
	case history.Fire:
		r = a.do(c.Daemon, "POST", Path(c.ID)+"/fire", nil, false)
	case history.Get:
		r = a.do(c.Daemon, "GET", Path(c.ID), nil, false)
	case history.Retry:
		r = a.do(c.Daemon, "POST", "/v1/dead-letters/"+url.PathEscape(c.ID)+"/retry", nil, false)
	}
	e := history.Event{
		Due: number(r.body, "due_ms"), Gen: number(r.body, "generation"),
		State: text(r.body, "state"), Tier: text(r.body, "durability") == "tier",
	}
	result := text(r.body, "result")
	switch {
	case r.open():
		e = history.Event{Answer: history.Unknown, Note: fmt.Sprint(r.status, " ", r.body)}
	case result != "":
		e.Answer = result
	case r.status == http.StatusOK:
		e.Answer = history.OK
	case r.status == http.StatusNotFound:
		e.Answer = "NOT_FOUND"
	default:
		e.Answer, e.Note = history.Refused, fmt.Sprint(r.status, " ", r.body)
	}
	return e, a.end(calls, []history.Event{e})
}

// Pull leases messages.
func (a *API) Pull(target string, most int64, wait, lease time.Duration) ([]history.Given, error) {
	c := history.Event{
		What: history.Pull, Target: target, Max: most, Lease: lease.Milliseconds(),
		Daemon: a.daemon(),
	}
	calls := []history.Event{c}
	if err := a.begin(calls); err != nil {
		return nil, err
	}
	r := a.do(c.Daemon, "POST", "/v1/queues/"+strings.TrimPrefix(target, "pull:")+"/pull", object{
		"max": most, "wait": wait.Milliseconds(), "lease": lease.Milliseconds(),
	}, false)
	e := history.Event{Answer: history.OK}
	switch list, ok := r.body["messages"].([]any); {
	case r.open():
		e.Answer, e.Note = history.Unknown, fmt.Sprint(r.status)
	case !ok:
		e.Answer, e.Note = history.Refused, fmt.Sprint(r.status, " ", r.body)
	default:
		for _, v := range list {
			o, _ := v.(object)
			e.Got = append(e.Got, history.Given{
				ID: text(o, "id"), Receipt: text(o, "receipt"), Try: number(o, "attempt"),
				Due: number(o, "due_ms"), Body: text(o, "body"),
				Fired: number(o, "fired_at_ms"),
			})
		}
	}
	return e.Got, a.end(calls, []history.Event{e})
}

// Settle acks, nacks or extends.
func (a *API) Settle(what, target string, got []history.Given, ms int64) error {
	if len(got) == 0 {
		return nil
	}
	daemon := a.daemon()
	calls := make([]history.Event, len(got))
	receipts := make([]string, len(got))
	for i, g := range got {
		calls[i] = history.Event{
			What: what, Target: target, ID: g.ID, Receipt: g.Receipt, Daemon: daemon,
		}
		receipts[i] = g.Receipt
		if what == history.Extend {
			calls[i].Lease = ms
		}
	}
	if err := a.begin(calls); err != nil {
		return err
	}
	body := object{"receipts": receipts}
	switch what {
	case history.Extend:
		body["lease"] = ms
	case history.Nack:
		body["delay"] = ms
	}
	r := a.do(daemon, "POST", "/v1/queues/"+strings.TrimPrefix(target, "pull:")+"/"+what, body, false)
	said := map[string]string{}
	list, _ := r.body["results"].([]any)
	for _, v := range list {
		o, _ := v.(object)
		said[text(o, "receipt")] = text(o, "result")
	}
	answers := make([]history.Event, len(got))
	for i, g := range got {
		answers[i].Answer = said[g.Receipt]
		switch {
		case r.open():
			answers[i].Answer, answers[i].Note = history.Unknown, fmt.Sprint(r.status)
		case answers[i].Answer == "":
			answers[i].Answer, answers[i].Note = history.Refused, fmt.Sprint(r.status, " ", r.body)
		}
	}
	return a.end(calls, answers)
}

// Look asks for something that is no part of the history.
func (a *API) Look(method, path string, body any) (map[string]any, error) {
	r := a.do(a.daemon(), method, path, body, false)
	if r.status != http.StatusOK {
		return nil, fmt.Errorf("%s %s: status %d %v", method, path, r.status, r.body)
	}
	return r.body, nil
}
