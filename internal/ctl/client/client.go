// SPDX-License-Identifier: Apache-2.0

// Package client speaks the daemon's JSON API for the command line, the bench and the demo.
//
//	command -> Client -> HTTP/1.1 JSON -> daemon
//	                 <- reply, or *Error with the code that becomes the exit status
//
// # Invariants
//
//	J1  An answer of the daemon is returned as it is; what is no answer of the daemon (no
//	    connection, a cut reply) is an error that is not *Error, and the outcome is unknown.
//	J2  Nothing is retried here: only the caller knows whether repeating is safe.
//
// A Client is safe for concurrent use.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options tune a Client. The zero value is right for a command.
type Options struct {
	Token       string
	Connections int           // kept open; default 2
	Timeout     time.Duration // of connecting; default 5 s
	TLS         TLS
}

// Client talks to one daemon.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// New is a client of the daemon at server, "127.0.0.1:7170" or a URL. It does not connect.
func New(server string, opts Options) (*Client, error) {
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("server %q: want host:port or http(s)://host:port", server)
	}
	conf, err := opts.TLS.config()
	if err != nil {
		return nil, err
	}
	conns, timeout := max(opts.Connections, 2), opts.Timeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: timeout}).DialContext,
		MaxIdleConnsPerHost: conns,
		MaxIdleConns:        conns,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
		TLSClientConfig:     conf,
		WriteBufferSize:     64 << 10,
		ReadBufferSize:      64 << 10,
	}
	return &Client{
		base:  strings.TrimSuffix(u.Scheme+"://"+u.Host+u.Path, "/"),
		token: opts.Token,
		http:  &http.Client{Transport: transport},
	}, nil
}

// Server is the daemon's URL.
func (c *Client) Server() string { return c.base }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is an answer of the daemon that is not a success.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
	Result  string `json:"result,omitempty"` // TOO_LATE, NOT_FOUND
}

// Error is the message with the code and the field.
func (e *Error) Error() string {
	text := e.Message
	if e.Field != "" && !strings.HasPrefix(text, e.Field) {
		text = e.Field + ": " + text
	}
	if text == "" {
		text = http.StatusText(e.Status)
	}
	switch {
	case e.Result != "":
		return e.Result + ": " + text
	case e.Code != "":
		return e.Code + ": " + text
	default:
		return fmt.Sprintf("%d: %s", e.Status, text)
	}
}

// maxReply bounds a whole reply read into memory: the largest batch with its bodies.
const maxReply = 512 << 20

// Do sends one request and decodes the reply into out (nil drops it). body is JSON, or nil.
func (c *Client) Do(ctx context.Context, method, path string, body []byte, out any) error {
	reply, err := c.Raw(ctx, method, path, "application/json", body, nil)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("%s %s: reply: %w", method, path, err)
	}
	return nil
}

// Raw sends one request and appends the reply's body to buf.
func (c *Client) Raw(ctx context.Context, method, path, kind string, body, buf []byte) ([]byte,
	error,
) {
	resp, err := c.send(ctx, method, path, kind, bytes.NewReader(body), len(body) > 0)
	if err != nil {
		return buf, err
	}
	defer resp.Body.Close()
	out := bytes.NewBuffer(buf)
	if n := resp.ContentLength; n > 0 && n < maxReply {
		out.Grow(int(n) + bytes.MinRead)
	}
	if _, err := out.ReadFrom(io.LimitReader(resp.Body, maxReply)); err != nil {
		return out.Bytes(), fmt.Errorf("%s %s: reply: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, answer(resp.StatusCode, out.Bytes()[len(buf):])
	}
	return out.Bytes(), nil
}

// Stream sends body as it is read and gives the reply's body to read.
func (c *Client) Stream(ctx context.Context, path, kind string, body io.Reader) (io.ReadCloser,
	error,
) {
	resp, err := c.send(ctx, http.MethodPost, path, kind, body, true)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return nil, answer(resp.StatusCode, text)
	}
	return resp.Body, nil
}

func (c *Client) send(ctx context.Context, method, path, kind string, body io.Reader,
	has bool,
) (*http.Response, error) {
	if !has {
		body = http.NoBody
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if has {
		req.Header.Set("Content-Type", kind)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	return resp, nil
}

// unreachable shortens the usual error of a daemon that is not there and says what to do.
func (c *Client) unreachable(err error) error {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return fmt.Errorf("no daemon at %s (%w); start one with `cicada serve`, or name another "+
			"with --server", c.base, dial.Err)
	}
	return err
}

func answer(status int, body []byte) *Error {
	e := &Error{Status: status}
	if json.Unmarshal(body, e) != nil || e.Code == "" && e.Message == "" {
		e.Message = strings.TrimSpace(string(body[:min(len(body), 200)]))
	}
	return e
}
