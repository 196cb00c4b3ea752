// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/cicadamq/cicada/delay"
)

// Encoding is how the header of a frame is written. A broker answers in the encoding it was asked
// in.
type Encoding uint8

// The encodings.
const (
	JSON   Encoding = iota
	Binary          // "ROCKETMQ": shorter, and cheaper on both sides
)

// Limits of a frame. The rest of a frame's length is 32 bits, that of a header 24.
const (
	DefaultMaxFrame = 32 << 20
	maxHeader       = 1<<24 - 1
	maxBinaryName   = 1<<15 - 1
)

// Flags of a Command.
const (
	flagResponse = 1 << iota
	flagOneWay
)

const (
	protocolVersion  = 475 // of 5.3.3; older brokers do not look, newer ones write plain JSON for it
	languageGo       = 9
	languageGoName   = "GO"
	encodingJSONName = "JSON"
	encodingBinName  = "ROCKETMQ"
)

// Command is one frame: a request or a response. What of a received one is not named here (the
// language and version of the peer) is not kept.
type Command struct {
	Code     int   // what is asked, or how it was answered
	Opaque   int32 // joins a response to its request
	Flag     int
	Remark   string
	Fields   map[string]string
	Body     []byte
	Encoding Encoding
}

// Response reports whether c answers a request.
func (c *Command) Response() bool { return c.Flag&flagResponse != 0 }

// OneWay reports whether nobody waits for an answer to c.
func (c *Command) OneWay() bool { return c.Flag&flagOneWay != 0 }

// Reply begins the response to c.
func (c *Command) Reply(code int, remark string) *Command {
	return &Command{
		Code: code, Opaque: c.Opaque, Flag: flagResponse, Remark: remark, Encoding: c.Encoding,
	}
}

// jsonHeader is the header in JSON. Values of fields are strings, numbers too.
type jsonHeader struct {
	Code      int               `json:"code"`
	Language  string            `json:"language"`
	Version   int               `json:"version"`
	Opaque    int32             `json:"opaque"`
	Flag      int               `json:"flag"`
	Remark    string            `json:"remark,omitempty"`
	Fields    map[string]string `json:"extFields,omitempty"`
	Serialize string            `json:"serializeTypeCurrentRPC"`
}

// Append appends the frame of c to dst. What cannot be written (a field that is not UTF-8, a frame
// beyond limit) wraps delay.ErrInvalid.
func (c *Command) Append(dst []byte, limit int) ([]byte, error) {
	for name, value := range c.Fields {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return dst, fmt.Errorf("%w: field %.40q is not UTF-8", delay.ErrInvalid, name)
		}
	}
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	var err error
	if c.Encoding == Binary {
		dst, err = c.appendBinary(dst)
	} else {
		dst, err = c.appendJSON(dst)
	}
	if err != nil {
		return dst[:start], err
	}
	header := len(dst) - start - 8
	total := 4 + header + len(c.Body)
	if header > maxHeader || total > limit {
		return dst[:start], fmt.Errorf("%w: frame of %d bytes, header %d: too large",
			delay.ErrInvalid, total, header)
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(total))
	binary.BigEndian.PutUint32(dst[start+4:], uint32(c.Encoding)<<24|uint32(header))
	return append(dst, c.Body...), nil
}

func (c *Command) appendJSON(dst []byte) ([]byte, error) {
	text, err := json.Marshal(jsonHeader{
		Code: c.Code, Language: languageGoName, Version: protocolVersion, Opaque: c.Opaque,
		Flag: c.Flag, Remark: c.Remark, Fields: c.Fields, Serialize: encodingJSONName,
	})
	if err != nil {
		return dst, fmt.Errorf("encode header: %w", err)
	}
	return append(dst, text...), nil
}

func (c *Command) appendBinary(dst []byte) ([]byte, error) {
	be := binary.BigEndian
	dst = be.AppendUint16(dst, uint16(c.Code))
	dst = append(dst, languageGo)
	dst = be.AppendUint16(dst, protocolVersion)
	dst = be.AppendUint32(dst, uint32(c.Opaque))
	dst = be.AppendUint32(dst, uint32(c.Flag))
	dst = be.AppendUint32(dst, uint32(len(c.Remark)))
	dst = append(dst, c.Remark...)
	at := len(dst)
	dst = be.AppendUint32(dst, 0)
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		if len(name) > maxBinaryName {
			return dst, fmt.Errorf("%w: a field's name has %d bytes", delay.ErrInvalid, len(name))
		}
		dst = be.AppendUint16(dst, uint16(len(name)))
		dst = append(dst, name...)
		dst = be.AppendUint32(dst, uint32(len(c.Fields[name])))
		dst = append(dst, c.Fields[name]...)
	}
	be.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst, nil
}

// ReadCommand reads the next frame. A length beyond limit, or a frame that is none, wraps
// delay.ErrCorrupt; an end between frames is io.EOF.
func ReadCommand(r io.Reader, limit int) (*Command, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(size[:]))
	if n < 4 || n > int64(limit) {
		return nil, fmt.Errorf("%w: frame of %d bytes, limit %d", delay.ErrCorrupt, n, limit)
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, fmt.Errorf("read frame of %d bytes: %w", n, noEOF(err))
	}
	return DecodeCommand(frame)
}

// noEOF makes the end of a stream inside a frame an error of its own.
func noEOF(err error) error {
	if err == io.EOF { //nolint:errorlint // ReadFull returns it bare
		return io.ErrUnexpectedEOF
	}
	return err
}

// DecodeCommand decodes a frame without its first length. The body aliases frame. Errors wrap
// delay.ErrCorrupt.
func DecodeCommand(frame []byte) (*Command, error) {
	if len(frame) < 4 {
		return nil, fmt.Errorf("%w: frame of %d bytes", delay.ErrCorrupt, len(frame))
	}
	word := binary.BigEndian.Uint32(frame)
	encoding, size := Encoding(word>>24), int(word&maxHeader)
	if size > len(frame)-4 {
		return nil, fmt.Errorf("%w: header of %d bytes in a frame of %d", delay.ErrCorrupt, size,
			len(frame))
	}
	header, body := frame[4:4+size], frame[4+size:]
	switch encoding {
	case JSON:
		return decodeJSON(header, body)
	case Binary:
		return decodeBinary(header, body)
	default:
		return nil, fmt.Errorf("%w: header encoding %d", delay.ErrCorrupt, encoding)
	}
}

func decodeJSON(header, body []byte) (*Command, error) {
	var h jsonHeader
	if err := json.Unmarshal(header, &h); err != nil {
		return nil, fmt.Errorf("%w: header: %w", delay.ErrCorrupt, err)
	}
	return &Command{
		Code: h.Code, Opaque: h.Opaque, Flag: h.Flag, Remark: h.Remark, Fields: h.Fields, Body: body,
	}, nil
}

// binaryFixed is the length of a binary header up to the remark's length.
const binaryFixed = 2 + 1 + 2 + 4 + 4

func decodeBinary(header, body []byte) (*Command, error) {
	be := binary.BigEndian
	if len(header) < binaryFixed {
		return nil, fmt.Errorf("%w: binary header of %d bytes", delay.ErrCorrupt, len(header))
	}
	c := &Command{
		Code: int(int16(be.Uint16(header))), Opaque: int32(be.Uint32(header[5:])),
		Flag: int(int32(be.Uint32(header[9:]))), Encoding: Binary, Body: body,
	}
	remark, rest, ok := cut32(header[binaryFixed:])
	fields, rest, ok2 := cut32(rest)
	if !ok || !ok2 || len(rest) > 0 {
		return nil, fmt.Errorf("%w: binary header: its lengths disagree", delay.ErrCorrupt)
	}
	c.Remark = string(remark)
	if len(fields) == 0 {
		return c, nil
	}
	c.Fields = map[string]string{}
	for len(fields) > 0 {
		if len(fields) < 2 {
			return nil, fmt.Errorf("%w: binary header: a field is cut off", delay.ErrCorrupt)
		}
		n := int(be.Uint16(fields))
		if fields = fields[2:]; n > len(fields) {
			return nil, fmt.Errorf("%w: binary header: a name is cut off", delay.ErrCorrupt)
		}
		name := fields[:n]
		value, rest, ok := cut32(fields[n:])
		if !ok {
			return nil, fmt.Errorf("%w: binary header: a value is cut off", delay.ErrCorrupt)
		}
		c.Fields[string(name)], fields = string(value), rest
	}
	return c, nil
}

// cut32 cuts a run of bytes with its length in front off b.
func cut32(b []byte) (run, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := int64(binary.BigEndian.Uint32(b))
	if b = b[4:]; n > int64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// standardJSON quotes the bare numbers that RocketMQ's encoder writes as names of members:
// {0:"a"} becomes {"0":"a"}. Anything else is left as it is.
func standardJSON(in []byte) []byte {
	var out bytes.Buffer
	out.Grow(len(in) + 16)
	var open []byte // the brackets around the position
	name := false   // whether a name may begin here
	for i := 0; i < len(in); i++ {
		c := in[i]
		switch {
		case c == '"':
			end := i + 1
			for ; end < len(in) && in[end] != '"'; end++ {
				if in[end] == '\\' {
					end++
				}
			}
			end = min(end, len(in)-1)
			out.Write(in[i : end+1])
			i, name = end, false
			continue
		case name && (c == '-' || c >= '0' && c <= '9'):
			end := i + 1
			for ; end < len(in) && in[end] >= '0' && in[end] <= '9'; end++ {
			}
			out.WriteByte('"')
			out.Write(in[i:end])
			out.WriteByte('"')
			i, name = end-1, false
			continue
		case c == '{' || c == '[':
			open = append(open, c)
			name = c == '{'
		case (c == '}' || c == ']') && len(open) > 0:
			open = open[:len(open)-1]
			name = false
		case c == ',':
			name = len(open) > 0 && open[len(open)-1] == '{'
		case c != ' ' && c != '\t' && c != '\n' && c != '\r':
			name = false
		}
		out.WriteByte(c)
	}
	return out.Bytes()
}
