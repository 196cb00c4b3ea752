// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// fake is as much of a NATS server as the tests need: clients, subscriptions, and a function that
// is told of everything published and may answer, late or never.
type fake struct {
	t  testing.TB
	ln net.Listener
	wg sync.WaitGroup

	mu         sync.Mutex
	conns      map[*fakeConn]bool
	published  func(c *fakeConn, m *nats.Msg)
	maxPayload int
}

type fakeConn struct {
	net.Conn

	mu   sync.Mutex
	subs map[string]string // sid -> subject
}

func newFake(t testing.TB, published func(c *fakeConn, m *nats.Msg)) *fake {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f := &fake{
		t: t, ln: ln, conns: map[*fakeConn]bool{}, published: published, maxPayload: 1 << 20,
	}
	f.wg.Go(f.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		f.cut()
		f.wg.Wait()
	})
	return f
}

func (f *fake) config() Config {
	return Config{Broker: "n1", URLs: []string{"nats://" + f.ln.Addr().String()}}
}

// cut ends every connection.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close()
	}
}

func (f *fake) accept() {
	for {
		conn, err := f.ln.Accept()
		if err != nil {
			return
		}
		c := &fakeConn{Conn: conn, subs: map[string]string{}}
		f.mu.Lock()
		f.conns[c] = true
		f.mu.Unlock()
		f.wg.Go(func() {
			f.serve(c)
			_ = c.Close()
			f.mu.Lock()
			delete(f.conns, c)
			f.mu.Unlock()
		})
	}
}

func (f *fake) serve(c *fakeConn) {
	c.write(`INFO {"server_id":"fake","version":"2.15.2","headers":true,"max_payload":%d,"proto":1}`,
		f.maxPayload)
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		switch strings.ToUpper(w[0]) {
		case "PING":
			c.write("PONG")
		case "SUB":
			c.mu.Lock()
			c.subs[w[len(w)-1]] = w[1]
			c.mu.Unlock()
		case "UNSUB":
			c.mu.Lock()
			delete(c.subs, w[1])
			c.mu.Unlock()
		case "PUB", "HPUB":
			m, err := readMsg(r, w)
			if err != nil {
				return
			}
			f.mu.Lock()
			published := f.published
			f.mu.Unlock()
			published(c, m)
		}
	}
}

// readMsg reads what follows PUB subject [reply] n, or HPUB subject [reply] header total.
func readMsg(r io.Reader, w []string) (*nats.Msg, error) {
	m := &nats.Msg{Subject: w[1], Header: nats.Header{}}
	total, _ := strconv.Atoi(w[len(w)-1])
	head, sizes := 0, 1
	if strings.EqualFold(w[0], "HPUB") {
		head, _ = strconv.Atoi(w[len(w)-2])
		sizes = 2
	}
	if len(w) == 3+sizes {
		m.Reply = w[2]
	}
	buf := make([]byte, total+2)
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, err
	}
	for i, line := range strings.Split(strings.TrimSpace(string(buf[:head])), "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && i > 0 {
			m.Header.Add(name, strings.TrimPrefix(value, " "))
		}
	}
	m.Data = buf[head:total]
	return m, nil
}

func (c *fakeConn) write(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Fprintf(c, format+"\r\n", args...)
}

// send delivers m to the subscription that matches the subject to, as the server's answers and the
// deliveries of consumers do: with another subject in the message.
func (c *fakeConn) send(to string, m *nats.Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for sid, pattern := range c.subs {
		if !matches(pattern, to) {
			continue
		}
		head := "NATS/1.0"
		if s := m.Header.Get("Status"); s != "" {
			head += " " + s + " " + m.Header.Get("Description")
		}
		head += "\r\n"
		for name, values := range m.Header {
			for _, v := range values {
				if name != "Status" && name != "Description" {
					head += name + ": " + v + "\r\n"
				}
			}
		}
		head += "\r\n"
		_, _ = fmt.Fprintf(c, "HMSG %s %s %s %d %d\r\n%s%s\r\n",
			m.Subject, sid, m.Reply, len(head), len(head)+len(m.Data), head, m.Data)
		return
	}
}

// answer replies to m.
func (c *fakeConn) answer(m *nats.Msg, data string) {
	if m.Reply != "" {
		c.send(m.Reply, &nats.Msg{Subject: m.Reply, Data: []byte(data)})
	}
}

func matches(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i := range p {
		switch {
		case p[i] == ">":
			return true
		case i >= len(s) || p[i] != "*" && p[i] != s[i]:
			return false
		}
	}
	return len(p) == len(s)
}
