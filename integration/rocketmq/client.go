// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"
)

// clientWithin bounds the start of the official client, which is compiled first, and one call.
const clientWithin = 2 * time.Minute

// Message is one that a producer sends. At most one of Level, Due and Delay is set.
type Message struct {
	Topic      string            `json:"topic"`
	Queue      int               `json:"queue"` // among all the topic's queues, by broker and number
	Tags       string            `json:"tags,omitempty"`
	Keys       string            `json:"keys,omitempty"`
	Flag       int32             `json:"flag,omitempty"`
	Body       []byte            `json:"body"`
	Properties map[string]string `json:"properties,omitempty"`
	Level      int               `json:"level,omitempty"` // delay level, from 1
	Due        int64             `json:"due,omitempty"`   // timer, Unix milliseconds
	Delay      int64             `json:"delay,omitempty"` // timer, milliseconds from when it is stored
}

// Sent is the answer to a producer.
type Sent struct {
	ID     string `json:"id"` // UNIQ_KEY
	Status string `json:"status"`
	At     int64  `json:"at"` // just before it was sent, Unix milliseconds
	Broker string `json:"broker"`
	Queue  int    `json:"queue"`  // -1: a gRPC client does not know
	Handle string `json:"handle"` // to recall it; "" for a delay level
}

// Received is one message as a consumer got it.
type Received struct {
	Topic      string            `json:"topic"`
	Broker     string            `json:"broker"`
	Queue      int               `json:"queue"` // -1: a gRPC client does not know
	Offset     int64             `json:"offset"`
	ID         string            `json:"id"` // UNIQ_KEY
	Tags       string            `json:"tags"`
	Keys       string            `json:"keys"`
	Flag       int32             `json:"flag"`
	Born       int64             `json:"born"`
	Stored     int64             `json:"stored"` // 0: a gRPC client does not know
	At         int64             `json:"at"`
	Body       []byte            `json:"body"`
	Properties map[string]string `json:"properties"`
}

// Tally is what the consumers of a load got.
type Tally struct {
	Arrived int   `json:"arrived"` // different messages
	Twice   int   `json:"twice"`   // repetitions
	Early   int   `json:"early"`
	P50     int64 `json:"p50"` // received minus due, in milliseconds
	P99     int64 `json:"p99"`
	Max     int64 `json:"max"`
}

// The kinds of Client, which are commands of rocketmq.sh.
const (
	Remoting = "client" // knows the brokers, and is the admin tool too
	GRPC     = "grpc"   // knows a proxy: Subscribe, Poll, Send of timers with an instant, and Recall
)

// Client is one of RocketMQ's official clients in a process of its own. It is safe for concurrent
// use; calls are answered one after the other.
type Client struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{} // closed when the process has ended

	mu      sync.Mutex
	last    int
	waiting map[int]chan []byte
	got     []Received
}

// StartClient starts one of a kind for the server whose data is in dir, with rocketmq.sh at path.
func StartClient(
	ctx context.Context, path, kind, dir string, stderr io.Writer,
) (*Client, error) {
	c := &Client{
		cmd: exec.Command(path, kind, dir), done: make(chan struct{}),
		waiting: map[int]chan []byte{0: make(chan []byte, 1)},
	}
	c.cmd.Stderr, c.cmd.SysProcAttr = stderr, childAttr()
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	ready := c.waiting[0]
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", kind, err)
	}
	go func() {
		c.read(out)
		_ = c.cmd.Wait()
		close(c.done)
	}()
	if _, err := c.await(ctx, 0, ready); err != nil {
		c.Close()
		return nil, fmt.Errorf("start the %s: %w", kind, err)
	}
	return c, nil
}

// read takes answers and messages until the process ends.
func (c *Client) read(out io.Reader) {
	in := bufio.NewReader(out)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var answer struct {
			ID  *int      `json:"id"`
			Got *Received `json:"got"`
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			continue // what a library prints
		}
		c.mu.Lock()
		switch {
		case answer.Got != nil:
			c.got = append(c.got, *answer.Got)
		case answer.ID != nil && c.waiting[*answer.ID] != nil:
			c.waiting[*answer.ID] <- line
			delete(c.waiting, *answer.ID)
		}
		c.mu.Unlock()
	}
}

func (c *Client) await(ctx context.Context, id int, answer chan []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, clientWithin)
	defer cancel()
	select {
	case line := <-answer:
		return line, nil
	case <-c.done:
		return nil, errors.New("the client ended")
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, id)
		return nil, ctx.Err()
	}
}

// call does what fields say and reads the answer into result, which may be nil.
func (c *Client) call(ctx context.Context, do string, fields map[string]any, result any) error {
	call := map[string]any{"do": do}
	maps.Copy(call, fields)
	answer := make(chan []byte, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	call["id"], c.waiting[id] = id, answer
	line, err := json.Marshal(call)
	if err == nil {
		_, err = c.in.Write(append(line, '\n'))
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", do, err)
	}
	line, err = c.await(ctx, id, answer)
	if err != nil {
		return fmt.Errorf("%s: %w", do, err)
	}
	var failed struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(line, &failed); err != nil {
		return fmt.Errorf("%s: %w", do, err)
	}
	if failed.Error != "" {
		return fmt.Errorf("%s: %s", do, failed.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(line, result)
}

// Topic creates a topic at the broker with this address.
func (c *Client) Topic(ctx context.Context, broker, topic string, queues int) error {
	return c.call(ctx, "topic", map[string]any{
		"broker": broker, "topic": topic, "queues": queues,
	}, nil)
}

// DelayTopic creates a topic to which gRPC clients may send delayed messages, and no others.
func (c *Client) DelayTopic(ctx context.Context, broker, topic string, queues int) error {
	return c.call(ctx, "topic", map[string]any{
		"broker": broker, "topic": topic, "queues": queues, "type": "DELAY",
	}, nil)
}

// Group creates a consumer group at a broker, which gRPC clients need.
func (c *Client) Group(ctx context.Context, broker, group string) error {
	return c.call(ctx, "group", map[string]any{"broker": broker, "group": group}, nil)
}

// User creates an ordinary user of a broker whose access is controlled.
func (c *Client) User(ctx context.Context, broker, name, password string) error {
	return c.call(ctx, "user", map[string]any{
		"broker": broker, "user": name, "password": password,
	}, nil)
}

// Grant allows a user actions on resources, as "Topic:*".
func (c *Client) Grant(ctx context.Context, broker, name string, resources, actions []string) error {
	return c.call(ctx, "grant", map[string]any{
		"broker": broker, "user": name, "resources": resources, "actions": actions,
	}, nil)
}

// Poll starts a consumer of the other kind that gRPC has, which asks for each batch.
func (c *Client) Poll(ctx context.Context, group, topic string) error {
	return c.call(ctx, "poll", map[string]any{"group": group, "topics": []string{topic}}, nil)
}

// Subscribe starts a consumer group that reads topics from their beginning. What it gets is in
// Received or, with tally, counted by Tally.
func (c *Client) Subscribe(ctx context.Context, group string, tally bool, topics ...string) error {
	return c.call(ctx, "subscribe", map[string]any{
		"group": group, "topics": topics, "tally": tally,
	}, nil)
}

// Send sends messages one after the other.
func (c *Client) Send(ctx context.Context, messages ...*Message) ([]Sent, error) {
	var answer struct {
		Sent []Sent `json:"sent"`
	}
	err := c.call(ctx, "send", map[string]any{"messages": messages}, &answer)
	if err == nil && len(answer.Sent) != len(messages) {
		err = fmt.Errorf("send: %d of %d were sent", len(answer.Sent), len(messages))
	}
	return answer.Sent, err
}

// Load sends many messages at once, named name0, name1 and so on, and returns how long it took.
func (c *Client) Load(ctx context.Context, load Load) (time.Duration, error) {
	var answer struct {
		Seconds float64 `json:"seconds"`
		Failed  int     `json:"failed"`
	}
	err := c.call(ctx, "load", map[string]any{
		"topic": load.Topic, "name": load.Name, "count": load.Count, "size": load.Size,
		"level": load.Level, "due": load.Due, "spread": load.Spread.Milliseconds(),
		"target": load.Target,
	}, &answer)
	if err == nil && answer.Failed > 0 {
		err = fmt.Errorf("load: %d of %d were refused", answer.Failed, load.Count)
	}
	return time.Duration(answer.Seconds * float64(time.Second)), err
}

// Load says what Client.Load sends: messages of a delay level, else requests to Cicada for a target,
// else timers, else ordinary messages.
type Load struct {
	Topic, Name string
	Count, Size int
	Level       int
	Target      string
	Due         int64         // of the first, Unix milliseconds; what Tally counts lateness from
	Spread      time.Duration // the last is due so much later
}

// Tally is what arrived since it was reset, for all groups that count.
func (c *Client) Tally(ctx context.Context, reset bool) (Tally, error) {
	var t Tally
	return t, c.call(ctx, "tally", map[string]any{"reset": reset}, &t)
}

// Fill sends so many bytes of ordinary messages.
func (c *Client) Fill(ctx context.Context, topic string, bytes int64) error {
	return c.call(ctx, "fill", map[string]any{"topic": topic, "bytes": bytes}, nil)
}

// Recall asks the broker to drop a timer.
func (c *Client) Recall(ctx context.Context, topic, handle string) error {
	return c.call(ctx, "recall", map[string]any{"topic": topic, "handle": handle}, nil)
}

// Expire asks a broker to delete the files of its commit log that are old enough.
func (c *Client) Expire(ctx context.Context, broker string) error {
	return c.call(ctx, "expire", map[string]any{"broker": broker}, nil)
}

// Log is the minimum and maximum offset of a broker's commit log.
func (c *Client) Log(ctx context.Context, broker string) (first, end int64, err error) {
	var answer struct {
		Info map[string]string `json:"info"`
	}
	if err = c.call(ctx, "info", map[string]any{"broker": broker}, &answer); err != nil {
		return 0, 0, err
	}
	if first, err = strconv.ParseInt(answer.Info["commitLogMinOffset"], 10, 64); err != nil {
		return 0, 0, fmt.Errorf("info: %w", err)
	}
	end, err = strconv.ParseInt(answer.Info["commitLogMaxOffset"], 10, 64)
	return first, end, err
}

// Received is what the consumers got until now, in order.
func (c *Client) Received() []Received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// Close ends it and returns when it is gone.
func (c *Client) Close() {
	_ = c.in.Close()
	_ = c.cmd.Process.Kill()
	<-c.done
}
