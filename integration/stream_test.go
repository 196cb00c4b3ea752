// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rawStream is an NDJSON request over a connection of its own, chunk by chunk.
type rawStream struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func openStream(t *testing.T, d *daemon) *rawStream {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(*d.base.Load(), "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(60*time.Second)))
	s := &rawStream{t: t, conn: conn, in: bufio.NewReader(conn)}
	s.raw("POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n" +
		"Transfer-Encoding: chunked\r\n\r\n")
	return s
}

func (s *rawStream) raw(text string) {
	s.t.Helper()
	_, err := io.WriteString(s.conn, text)
	require.NoError(s.t, err)
}

// chunk sends text as one chunk.
func (s *rawStream) chunk(text string) {
	s.t.Helper()
	s.raw(fmt.Sprintf("%x\r\n%s\r\n", len(text), text))
}

// answers reads the status and gives the reply lines.
func (s *rawStream) answers() *bufio.Reader {
	s.t.Helper()
	resp, err := http.ReadResponse(s.in, nil)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusOK, resp.StatusCode)
	require.Contains(s.t, resp.Header.Get("Content-Type"), "application/x-ndjson")
	return bufio.NewReader(resp.Body)
}

func line(t *testing.T, in *bufio.Reader) obj {
	t.Helper()
	text, err := in.ReadBytes('\n')
	require.NoError(t, err)
	var o obj
	require.NoError(t, json.Unmarshal(text, &o), "%s", text)
	return o
}

// Replies must flow while lines arrive: a client that waits for each reply must not wait for ever.
func TestStreamFlows(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	s := openStream(t, d)
	message := func(i int) string {
		return fmt.Sprintf(`{"id":"%s-%d","target":"pull:%s","delay":"1h"}`, q, i, q) + "\n"
	}
	s.chunk(message(0))
	in := s.answers()
	require.Equal(t, q+"-0", line(t, in)["id"])
	s.chunk(message(1)[:20]) // a line in two chunks
	s.chunk(message(1)[20:])
	require.Equal(t, q+"-1", line(t, in)["id"])
	s.chunk("not json\n" + message(2) + `{"id":"` + q + `-bad","target":"nowhere","delay":"1h"}` + "\n\n" +
		message(3))
	r := line(t, in)
	require.Equal(t, "invalid_argument", r["error"].(obj)["code"])
	require.Equal(t, q+"-2", line(t, in)["id"])
	r = line(t, in)
	require.Equal(t, "invalid_argument", r["error"].(obj)["code"])
	require.Equal(t, "target", r["error"].(obj)["field"])
	require.Equal(t, q+"-3", line(t, in)["id"])
	s.chunk(strings.TrimSuffix(message(4), "\n")) // the end in order completes the last line
	s.raw("0\r\n\r\n")
	require.Equal(t, q+"-4", line(t, in)["id"])
	_, err := in.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	require.EqualValues(t, 5, d.count("target=pull:"+q))
}

// A client that vanishes: whole lines are stored, the cut one never, and what was acknowledged is
// there.
func TestStreamCut(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]bool{"after the replies": true, "unread": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := api(t)
			q := queue(t)
			s := openStream(t, d)
			const n = 2000
			for i := range n {
				s.chunk(fmt.Sprintf(`{"id":"%s-%d","target":"pull:%s","delay":"1h"}`, q, i, q) + "\n")
			}
			if wait {
				in := s.answers()
				for i := range n {
					require.Equal(t, fmt.Sprint(q, "-", i), line(t, in)["id"])
				}
			}
			// net/http drops what is still in the socket when a reply cannot be written, so the
			// client vanishes when its lines have been taken.
			eventually(t, "whole lines are stored", func() bool { return d.count("target=pull:"+q) == n })
			s.raw(fmt.Sprintf("%x\r\n", 1000))
			s.raw(fmt.Sprintf(`{"id":"%s-cut","target":"pull:%s","delay":"1h"}`, q, q)) // complete but for \n
			time.Sleep(50 * time.Millisecond)
			require.NoError(t, s.conn.Close())
			time.Sleep(200 * time.Millisecond)
			require.EqualValues(t, n, d.count("target=pull:"+q))
			require.Equal(t, "not_found", d.state(q+"-cut"))
		})
	}
}

// A cut body with a length is not taken either.
func TestTruncatedBody(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	for _, kind := range []string{"application/json", "application/x-ndjson"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(*d.base.Load(), "http://"))
		require.NoError(t, err)
		body := fmt.Sprintf(`{"id":"%s","target":"pull:%s","delay":"1h"}`, q, q)
		_, err = fmt.Fprintf(conn, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n"+
			"Content-Length: %d\r\n\r\n%s", kind, len(body)+1, body)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		time.Sleep(200 * time.Millisecond)
		require.Equal(t, "not_found", d.state(q), kind)
	}
}

// Any length: far more than a batch may hold, answered in order, also to a client that reads only
// when it has sent everything.
func TestStreamLong(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	const n = 30_000
	var b strings.Builder
	for i := range n {
		if i%1000 == 999 {
			b.WriteString("{}\n")
			continue
		}
		fmt.Fprintf(&b, `{"id":"%s-%d","target":"pull:%s","delay":"%ds"}`+"\n", q, i, q, 3600+i%100)
	}
	req, err := http.NewRequest(http.MethodPost, *d.base.Load()+"/v1/messages", strings.NewReader(b.String()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-ndjson")
	r := d.do(req)
	require.Equal(t, http.StatusOK, r.status)
	i := 0
	for reply := range strings.Lines(string(r.body)) {
		var o obj
		require.NoError(t, json.Unmarshal([]byte(reply), &o))
		if i%1000 == 999 {
			require.NotNil(t, o["error"], i)
		} else {
			require.Equal(t, fmt.Sprint(q, "-", i), o["id"])
		}
		i++
	}
	require.Equal(t, n, i)
	require.EqualValues(t, n-n/1000, d.count("target=pull:"+q))
}

// SIGTERM ends a stream in the middle: what it answered is there after the restart, and nothing of
// the rest is lost without an answer.
func TestStreamDrained(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	s := openStream(t, d)
	s.chunk(`{"id":"0","target":"pull:q","delay":"1h"}` + "\n")
	in := s.answers()
	require.Equal(t, "0", line(t, in)["id"])
	d.term()
	require.Equal(t, 0, d.wait(), "%s", d.logFrom(0))
	d.start()
	require.Equal(t, "scheduled", d.state("0"))
	require.EqualValues(t, 1, d.count(""))
}
