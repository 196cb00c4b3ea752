// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, got, "%s: the bytes on the wire have changed", name)
}

func fromBroker(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".real"))
	require.NoError(t, err)
	return b
}

func sample(e Encoding) *Command {
	return &Command{
		Code: RequestSend, Opaque: 77, Flag: flagOneWay, Remark: "why \"not\"", Encoding: e,
		Fields: map[string]string{"b": "topic", "i": "a\x01ä<>&\x02", "empty": ""},
		Body:   []byte{0, 1, 2, 255},
	}
}

// Brokers of other versions read these bytes: they may not change unnoticed.
func TestFramesAreGolden(t *testing.T) {
	for name, e := range map[string]Encoding{"frame-json.bin": JSON, "frame-binary.bin": Binary} {
		b, err := sample(e).Append(nil, DefaultMaxFrame)
		require.NoError(t, err)
		golden(t, name, b)
	}
}

// A field may be lost or changed on its way, or a frame be taken for its neighbour's part.
func TestFramesRoundTrip(t *testing.T) {
	var stream []byte
	var want []*Command
	for _, e := range []Encoding{JSON, Binary} {
		for _, c := range []*Command{sample(e), {Code: 0, Opaque: -1, Flag: 1, Encoding: e}} {
			var err error
			stream, err = c.Append(stream, DefaultMaxFrame)
			require.NoError(t, err)
			want = append(want, c)
		}
	}
	r := bytes.NewReader(stream)
	for _, w := range want {
		got, err := ReadCommand(r, DefaultMaxFrame)
		require.NoError(t, err)
		if len(got.Body) == 0 {
			got.Body = nil
		}
		require.Equal(t, w, got)
	}
	_, err := ReadCommand(r, DefaultMaxFrame)
	require.Equal(t, io.EOF, err)
}

// A length of the peer's may ask for all memory, or point beyond what is there (M2).
func TestFrameLengthsAreNotBelieved(t *testing.T) {
	good, err := sample(JSON).Append(nil, DefaultMaxFrame)
	require.NoError(t, err)
	for name, b := range map[string][]byte{
		"too large":        {0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"negative":         {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"too small":        {0, 0, 0, 3, 0, 0, 0},
		"header too large": {0, 0, 0, 4, 0, 0, 0, 1},
		"encoding":         {0, 0, 0, 4, 2, 0, 0, 0},
		"no header":        {0, 0, 0, 4, 0, 0, 0, 0},
		"binary too short": {0, 0, 0, 5, 1, 0, 0, 1, 0},
	} {
		_, err := ReadCommand(bytes.NewReader(b), 1<<20)
		require.ErrorIs(t, err, delay.ErrCorrupt, name)
	}
	for cut := 1; cut < len(good); cut++ {
		_, err := ReadCommand(bytes.NewReader(good[:cut]), 1<<20)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", cut)
	}
	_, err = ReadCommand(bytes.NewReader(good), len(good)-5)
	require.ErrorIs(t, err, delay.ErrCorrupt)
}

// What a broker would read otherwise than it was meant must not leave.
func TestFramesThatCannotBeWritten(t *testing.T) {
	_, err := (&Command{Fields: map[string]string{"a": "\xff"}}).Append(nil, DefaultMaxFrame)
	require.ErrorIs(t, err, delay.ErrInvalid)
	_, err = (&Command{Body: make([]byte, 100)}).Append(nil, 100)
	require.ErrorIs(t, err, delay.ErrInvalid)
	long := strings.Repeat("n", 1<<15)
	_, err = (&Command{Encoding: Binary, Fields: map[string]string{long: ""}}).Append(nil, 1<<20)
	require.ErrorIs(t, err, delay.ErrInvalid)
}

// A name server writes numbers as names of members, which no other reader of JSON takes; what is
// inside of strings must stay.
func TestStandardJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{0:"a",-12 : [1,2,{3:4}]}`:      `{"0":"a","-12" : [1,2,{"3":4}]}`,
		`{"a":1,"b":[0,1]}`:              `{"a":1,"b":[0,1]}`,
		`{"x":"{0:1,2:3}\"{4:5","y":{}}`: `{"x":"{0:1,2:3}\"{4:5","y":{}}`,
		`[{1:1},2,{3:3}]`:                `[{"1":1},2,{"3":3}]`,
		`"unfinished \"`:                 `"unfinished \"`,
		`}]{`:                            `}]{`,
	} {
		require.Equal(t, want, string(standardJSON([]byte(in))))
	}
}

func FuzzStandardJSON(f *testing.F) {
	f.Add([]byte(`{0:"a",-12:[1,{3:4}]}`))
	f.Add([]byte(`{"a":"\\\"{0:"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := standardJSON(in)
		if json.Valid(in) {
			require.Equal(t, in, out, "JSON is left as it is")
		}
	})
}

func FuzzDecodeCommand(f *testing.F) {
	for _, e := range []Encoding{JSON, Binary} {
		b, err := sample(e).Append(nil, DefaultMaxFrame)
		require.NoError(f, err)
		f.Add(b[4:])
	}
	f.Add([]byte{1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, frame []byte) {
		c, err := DecodeCommand(frame)
		if err != nil {
			require.ErrorIs(t, err, delay.ErrCorrupt)
			return
		}
		again, err := c.Append(nil, 1<<30)
		if err != nil { // what came in binary need not be UTF-8
			require.ErrorIs(t, err, delay.ErrInvalid)
			return
		}
		same, err := DecodeCommand(again[4:])
		require.NoError(t, err)
		if c.Encoding == Binary { // a code has 16 bits there
			require.Equal(t, c.Fields, same.Fields)
			require.Equal(t, c.Remark, same.Remark)
		}
		require.True(t, bytes.Equal(c.Body, same.Body))
		require.Equal(t, c.Opaque, same.Opaque)
	})
}
