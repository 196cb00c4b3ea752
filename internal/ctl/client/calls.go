// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// encode marshals what this package or a command made itself, which cannot fail.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: encode request: " + err.Error())
	}
	return b
}

func messagePath(id string) string { return "/v1/messages/" + url.PathEscape(id) }

// Send stores one message; fields are those of POST /v1/messages.
func (c *Client) Send(ctx context.Context, message map[string]any) (Receipt, error) {
	var r Receipt
	err := c.Do(ctx, http.MethodPost, "/v1/messages", encode(message), &r)
	return r, err
}

// Get is one message.
func (c *Client) Get(ctx context.Context, id string, body bool) (Message, error) {
	var m Message
	path := messagePath(id)
	if body {
		path += "?body=true"
	}
	err := c.Do(ctx, http.MethodGet, path, nil, &m)
	return m, err
}

// List is one page of messages by due.
func (c *Client) List(ctx context.Context, filter url.Values) (Page, error) {
	return c.page(ctx, "/v1/messages", filter)
}

// Next is the messages that are due soonest.
func (c *Client) Next(ctx context.Context, limit int) (Page, error) {
	return c.page(ctx, "/v1/pending/next", url.Values{"limit": {strconv.Itoa(limit)}})
}

// DeadLetters is one page of the dead letters.
func (c *Client) DeadLetters(ctx context.Context, filter url.Values) (Page, error) {
	return c.page(ctx, "/v1/dead-letters", filter)
}

func (c *Client) page(ctx context.Context, path string, query url.Values) (Page, error) {
	var p Page
	err := c.Do(ctx, http.MethodGet, withQuery(path, query), nil, &p)
	return p, err
}

func withQuery(path string, query url.Values) string {
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}

// Count counts pending messages.
func (c *Client) Count(ctx context.Context, filter url.Values) (int64, error) {
	var r struct {
		Count int64 `json:"count"`
	}
	err := c.Do(ctx, http.MethodGet, withQuery("/v1/pending/count", filter), nil, &r)
	return r.Count, err
}

// Histogram counts pending messages by their due.
func (c *Client) Histogram(ctx context.Context, query url.Values) ([]Bucket, error) {
	var r struct {
		Buckets []Bucket `json:"buckets"`
	}
	err := c.Do(ctx, http.MethodGet, withQuery("/v1/pending/histogram", query), nil, &r)
	return r.Buckets, err
}

// Cancel withdraws a message. A message that is too late or unknown is an *Error with Result. how
// is "", "stop" or "recall".
func (c *Client) Cancel(ctx context.Context, id, how string) (Verdict, error) {
	path := messagePath(id)
	if how != "" {
		path += "?" + how + "=true"
	}
	return c.change(ctx, http.MethodDelete, path, nil)
}

// Reschedule moves a message to another due: {"delay": …} or {"deliver_at": …}.
func (c *Client) Reschedule(ctx context.Context, id string, when map[string]any) (Verdict, error) {
	return c.change(ctx, http.MethodPatch, messagePath(id), encode(when))
}

// Fire makes a message due now.
func (c *Client) Fire(ctx context.Context, id string) (Verdict, error) {
	return c.change(ctx, http.MethodPost, messagePath(id)+"/fire", nil)
}

// PauseSchedule keeps a schedule from firing, or lets it go on.
func (c *Client) PauseSchedule(ctx context.Context, id string, paused bool) (Verdict, error) {
	verb := "/resume"
	if paused {
		verb = "/pause"
	}
	return c.change(ctx, http.MethodPost, messagePath(id)+verb, nil)
}

func (c *Client) change(ctx context.Context, method, path string, body []byte) (Verdict, error) {
	var v Verdict
	err := c.Do(ctx, method, path, body, &v)
	return v, err
}

// Purged is what a purge has done.
type Purged struct {
	Count      int64  `json:"count"`
	Cancelling bool   `json:"cancelling"` // more are cancelled and not counted yet
	Durability string `json:"durability"`
}

// Purge cancels everything scheduled that matches filter, or only counts it.
func (c *Client) Purge(
	ctx context.Context, filter map[string]any, dryRun bool,
) (Purged, error) {
	request := map[string]any{}
	maps.Copy(request, filter)
	if dryRun {
		request["dry_run"] = true
	}
	var r Purged
	err := c.Do(ctx, http.MethodPost, "/v1/pending/purge", encode(request), &r)
	return r, err
}

// PullRequest asks for due messages of a queue. Durations are texts such as "5s".
type PullRequest struct {
	Max   int    `json:"max,omitempty"`
	Wait  string `json:"wait,omitempty"`
	Lease string `json:"lease,omitempty"`
}

func queuePath(queue, verb string) string {
	return "/v1/queues/" + url.PathEscape(queue) + "/" + verb
}

// Pull leases messages.
func (c *Client) Pull(ctx context.Context, queue string, req PullRequest) ([]Leased, error) {
	var r struct {
		Messages []Leased `json:"messages"`
	}
	err := c.Do(ctx, http.MethodPost, queuePath(queue, "pull"), encode(req), &r)
	return r.Messages, err
}

// Settle acks, nacks or extends (verb "ack", "nack", "extend"); extra holds delay, reason, lease.
func (c *Client) Settle(ctx context.Context, queue, verb string, receipts []string,
	extra map[string]string,
) ([]Settled, error) {
	request := map[string]any{"receipts": receipts}
	for k, v := range extra {
		request[k] = v
	}
	var r struct {
		Results []Settled `json:"results"`
	}
	err := c.Do(ctx, http.MethodPost, queuePath(queue, verb), encode(request), &r)
	if err == nil && len(r.Results) != len(receipts) {
		err = fmt.Errorf("%s %s: %d answers to %d receipts", verb, queue, len(r.Results),
			len(receipts))
	}
	return r.Results, err
}

// RetryDead moves a dead letter back to pending.
func (c *Client) RetryDead(ctx context.Context, id string) (json.RawMessage, error) {
	var r json.RawMessage
	path := "/v1/dead-letters/" + url.PathEscape(id) + "/retry"
	err := c.Do(ctx, http.MethodPost, path, nil, &r)
	return r, err
}

// DeleteDead forgets a dead letter.
func (c *Client) DeleteDead(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodDelete, "/v1/dead-letters/"+url.PathEscape(id), nil, nil)
}

// Targets lists the lanes.
func (c *Client) Targets(ctx context.Context) ([]Target, error) {
	var r struct {
		Targets []Target `json:"targets"`
	}
	err := c.Do(ctx, http.MethodGet, "/v1/targets", nil, &r)
	return r.Targets, err
}

// SetPaused pauses or resumes a target.
func (c *Client) SetPaused(ctx context.Context, target string, paused bool) error {
	verb := "resume"
	if paused {
		verb = "pause"
	}
	return c.Do(ctx, http.MethodPost, "/v1/targets/"+verb,
		encode(map[string]string{"target": target}), nil)
}

// SetLimit limits how fast a target is delivered to, by messages per second and at once; a rate of
// 0 removes the limit, a burst of 0 leaves it to the daemon.
func (c *Client) SetLimit(
	ctx context.Context, target string, rate float64, burst int64,
) (*Limit, error) {
	body := map[string]any{"target": target, "rate": rate}
	if burst != 0 {
		body["burst"] = burst
	}
	var r struct {
		Limit *Limit `json:"limit"`
	}
	err := c.Do(ctx, http.MethodPost, "/v1/targets/limit", encode(body), &r)
	return r.Limit, err
}

// Status is the daemon's status as it was sent.
func (c *Client) Status(ctx context.Context) (json.RawMessage, error) {
	var r json.RawMessage
	err := c.Do(ctx, http.MethodGet, "/v1/status", nil, &r)
	return r, err
}

// Tier is the state of the cold tier, as the daemon gives it.
func (c *Client) Tier(ctx context.Context) (json.RawMessage, error) {
	var r json.RawMessage
	err := c.Do(ctx, http.MethodGet, "/v1/tier", nil, &r)
	return r, err
}

// ConfirmClock accepts the daemon's wall clock after a step that it holds (rule R21).
func (c *Client) ConfirmClock(ctx context.Context) error {
	return c.Do(ctx, http.MethodPost, "/v1/clock/confirm", nil, nil)
}

// Ready reports whether the daemon accepts requests.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.Raw(ctx, http.MethodGet, "/readyz", "", nil, nil)
	return err
}

// Metric is the value of a metric without labels.
func (c *Client) Metric(ctx context.Context, name string) (float64, error) {
	text, err := c.Raw(ctx, http.MethodGet, "/metrics", "", nil, nil)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(v), 64)
		}
	}
	return 0, fmt.Errorf("the daemon has no metric %s", name)
}
