// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func lines(t *testing.T, name string) []map[string]any {
	t.Helper()
	body, err := os.ReadFile(name)
	require.NoError(t, err)
	var out []map[string]any
	for text := range bytes.Lines(body) {
		var v map[string]any
		require.NoError(t, json.Unmarshal(text, &v), "%q", text)
		out = append(out, v)
	}
	return out
}

// An audit that others can read, that forgets or that mixes its lines is none (A2, A3).
func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(name, zap.NewNop())
	require.NoError(t, err)
	at := time.UnixMilli(1_800_000_000_123)
	l.Write(Entry{
		At: at, Who: "token ops", From: "127.0.0.1:5", Action: "purge", Count: 7, Answer: "ok",
		Target: "https://x.example/hook?key=topsecret", Filter: "id_prefix=a",
	})
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.Equal(t, []map[string]any{{
		"at": "2027-01-15T08:00:00.123Z", "who": "token ops", "from": "127.0.0.1:5",
		"action": "purge", "count": 7.0, "answer": "ok", "filter": "id_prefix=a",
		"target": "https://x.example/hook?***",
	}}, lines(t, name))

	require.NoError(t, os.Rename(name, name+".1"))
	l.Write(Entry{Action: "old", Answer: "ok"})
	require.NoError(t, l.Reopen())
	l.Write(Entry{Action: "new", Answer: "ok"})
	require.Len(t, lines(t, name+".1"), 2)
	require.Len(t, lines(t, name), 1)
	require.NoError(t, l.Close())

	again, err := Open(name, zap.NewNop())
	require.NoError(t, err)
	again.Write(Entry{Action: "third", Answer: "ok"})
	require.Len(t, lines(t, name), 2, "what was written stays")
	require.NoError(t, again.Close())

	link := name + ".link"
	require.NoError(t, os.Symlink(name, link))
	_, err = Open(link, zap.NewNop())
	require.Error(t, err, "a link is not followed")
	_, err = Open(filepath.Join(name, "below"), zap.NewNop())
	require.ErrorContains(t, err, "audit.file")
}

// Lines that are written while the file is replaced must all be in one file or the other.
func TestReopenBesideWrites(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "audit.log")
	l, err := Open(name, zap.NewNop())
	require.NoError(t, err)
	var wg sync.WaitGroup
	const writers, each = 4, 100
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				l.Write(Entry{Action: fmt.Sprint(w, "-", i), Answer: "ok", ID: strings.Repeat("x", 500)})
			}
		})
	}
	for i := range 20 {
		require.NoError(t, os.Rename(name, fmt.Sprint(name, ".", i)))
		require.NoError(t, l.Reopen())
	}
	wg.Wait()
	require.NoError(t, l.Close())
	files, err := filepath.Glob(name + "*")
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, f := range files {
		for _, v := range lines(t, f) {
			seen[v["action"].(string)] = true
		}
	}
	require.Len(t, seen, writers*each)
}

// Without a file the ordinary log has the entries, and it is told when a file cannot be written (A4).
func TestLogger(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	l, err := Open("", zap.New(core))
	require.NoError(t, err)
	l.Write(Entry{Who: "token ops", Action: "pause", Target: "pull:a", Answer: "ok", Count: 3})
	require.Equal(t, map[string]any{
		"who": "token ops", "action": "pause", "target": "pull:a", "answer": "ok", "count": int64(3),
	}, logs.TakeAll()[0].ContextMap())
	require.NoError(t, l.Reopen())
	require.NoError(t, l.Close())

	full, err := Open(filepath.Join(t.TempDir(), "a"), zap.New(core))
	require.NoError(t, err)
	require.NoError(t, full.Close())
	full.Write(Entry{Who: "token ops", Action: "purge", Answer: "ok"})
	got := logs.TakeAll()
	require.Len(t, got, 1)
	require.Equal(t, "audit not written", got[0].Message)
	require.Equal(t, "purge", got[0].ContextMap()["action"])
}

// FuzzWrite: whatever a client puts into an id or a target, an entry stays one line of JSON with
// nothing in it that a terminal obeys (A1).
func FuzzWrite(f *testing.F) {
	for _, s := range []string{
		"plain", "a\nb", "a\r\n{\"who\":\"root\"}", "\x1b[2J", "\x00", "\xff\xfe", "\u2028", "\u202e",
		"\u0085", "\x9b31m", `\n`, `"`, strings.Repeat("é", 2000), "https://x/?a\nb", "\ufeff", "\ufffd",
	} {
		f.Add(s)
	}
	name := filepath.Join(f.TempDir(), "audit.log")
	f.Fuzz(func(t *testing.T, s string) {
		require.NoError(t, os.RemoveAll(name))
		l, err := Open(name, zap.NewNop())
		require.NoError(t, err)
		defer l.Close()
		l.Write(Entry{
			Who: s, From: s, Action: s, ID: s, Target: s, Filter: s, Answer: s, Detail: s, Count: 1,
		})
		body, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, 1, bytes.Count(body, []byte{'\n'}))
		require.Less(t, len(body), 9*8*maxValue)
		for _, r := range strings.TrimSuffix(string(body), "\n") {
			require.True(t, unicode.IsPrint(r), "%q", body)
		}
		require.Len(t, lines(t, name), 1)
	})
}
