// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

var jsonSeeds = []string{
	`{}`, `[]`, `null`, `true`, `false`, `0`, `-0`, `1.5e+3`, `-`, `01`, `1.`, `.5`, `1e`, `+1`, `""`,
	`"a"`, `"\u00e4\n\"\\\/"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00\ud83d"`, `"\u12"`, `"\x"`, `"`,
	"\"\x01\"", "\"\xff\"", "\"\x7f\"", `{"a":1,"b":[1,2,{"c":null}]}`, `{"a":1,}`, `[1,]`, `[,1]`,
	`{"a"}`, `{"a":}`, `{a:1}`, `{"a":1 "b":2}`, `[1 2]`, ` [ 1 , 2 ] `, `tru`, `nulll`, `[}`, `{]`,
	"\x00", "1\x00", `"abcdefgh` + "\x1f" + `"`, `"abcdefghijklmnopqrstuvwxyz\n0123456789äöü"`,
	`"aaaaaaa"`, `"aaaaaaaa"`, `"aaaaaaaaa\"bbbbbbbbbb\\"`, "\ufeff{}", `{"a":"\u0000"}`,
	strings.Repeat("[", 33) + strings.Repeat("]", 33), strings.Repeat("[", 34) + strings.Repeat("]", 34),
}

// A text that is no JSON must be refused, and one that is must not be, whatever is in it.
func FuzzScanner(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if bytes.Count(in, []byte("["))+bytes.Count(in, []byte("{")) > maxDepth {
			return // encoding/json has no such bound
		}
		s := scanner{b: bytes.Clone(in)}
		s.skip(0)
		s.end()
		if s.err != nil && strings.Contains(s.err.Error(), "not valid UTF-8") {
			require.True(t, !utf8.Valid(in) || bytes.Contains(in, []byte(`\u`)))
			return // a field that has no name: encoding/json invents one
		}
		require.Equal(t, json.Valid(in), s.err == nil, "%q: %v", in, s.err)
	})
}

// A string must mean what encoding/json takes it for; where that replaces, ours refuses (J1).
func FuzzString(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var want string
		if len(in) == 0 || in[0] != '"' || json.Unmarshal(in, &want) != nil {
			return
		}
		s := scanner{b: bytes.Clone(in)}
		got, ok := s.str()
		s.end()
		require.NoError(t, s.err)
		if !ok {
			require.Contains(t, want, "\ufffd", "refused without need")
			return
		}
		require.True(t, utf8.Valid(got))
		require.Equal(t, want, string(got))
	})
}

// What is written must be read back by any JSON reader, escapes and invalid UTF-8 included.
func FuzzAppendString(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := AppendString(nil, in)
		var got string
		require.NoError(t, json.Unmarshal(out, &got), "%q", out)
		require.Equal(t, strings.ToValidUTF8(in, "\ufffd"), got)
	})
}

// Nesting beyond the bound must be refused, not followed: it would eat the stack.
func TestDepth(t *testing.T) {
	s := scanner{b: []byte(strings.Repeat("[", 1<<20))}
	s.skip(0)
	require.ErrorContains(t, s.err, "nested deeper")
}
