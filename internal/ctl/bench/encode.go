// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// Encoding is how the generator writes requests.
type Encoding string

// The encodings.
const (
	JSON     Encoding = "json"
	NDJSON   Encoding = "ndjson"
	Protobuf Encoding = "protobuf"
)

// ParseEncoding reads the word of the command line.
func ParseEncoding(s string) (Encoding, error) {
	switch e := Encoding(s); e {
	case JSON, NDJSON, Protobuf:
		return e, nil
	default:
		return "", fmt.Errorf("encoding %q: want json, ndjson or protobuf", s)
	}
}

// message is one generated message.
type message struct {
	id   string // "" lets the server make one
	due  int64
	body []byte
}

// Bodies are generated once: at a million messages a second making them would be the bench.
const (
	maxBodies    = 4096
	bodiesMemory = 64 << 20
)

// makeBodies gives up to maxBodies different JSON-like texts of size bytes. Their quotes are ', so
// that nothing needs an escape.
func makeBodies(size int, seed uint64) [][]byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	words := []string{"order", "invoice", "customer", "pending", "reminder", "eu-west", "EUR",
		"amount", "timeout", "retry", "priority", "channel", "mail", "basket", "delivery"}
	all := make([][]byte, max(1, min(maxBodies, bodiesMemory/max(size, 1))))
	for i := range all {
		b := append(make([]byte, 0, size+64), "{'n':"...)
		b = strconv.AppendInt(b, rng.Int64N(1<<40), 10)
		for len(b) < size {
			b = append(b, ",'"...)
			b = append(b, words[rng.IntN(len(words))]...)
			b = append(b, "':'"...)
			b = append(b, words[rng.IntN(len(words))]...)
			b = append(b, '-')
			b = strconv.AppendInt(b, rng.Int64N(1<<32), 36)
			b = append(b, '\'')
		}
		all[i] = b[:size]
	}
	return all
}

// encoder writes requests into a reused buffer.
type encoder struct {
	target   string
	encoding Encoding
	single   bool
	buf      []byte
	item     []byte
}

func (e *encoder) path() (path, kind string) {
	switch e.encoding {
	case Protobuf:
		return "/cicada.v1.Scheduler/Send", "application/proto"
	case NDJSON:
		return "/v1/messages", "application/x-ndjson"
	default:
		return "/v1/messages", "application/json"
	}
}

func (e *encoder) begin() {
	e.buf = e.buf[:0]
	if e.encoding == JSON && !e.single {
		e.buf = append(e.buf, `{"messages":[`...)
	}
}

func (e *encoder) add(m message) {
	switch e.encoding {
	case Protobuf:
		e.protobuf(m)
	case NDJSON:
		e.json(m)
		e.buf = append(e.buf, '\n')
	default:
		if last := len(e.buf) - 1; last >= 0 && e.buf[last] == '}' {
			e.buf = append(e.buf, ',')
		}
		e.json(m)
	}
}

func (e *encoder) end() []byte {
	if e.encoding == JSON && !e.single {
		e.buf = append(e.buf, "]}"...)
	}
	return e.buf
}

func (e *encoder) json(m message) {
	b := append(e.buf, '{')
	if m.id != "" {
		b = append(b, `"id":"`...)
		b = append(b, m.id...)
		b = append(b, `",`...)
	}
	b = append(b, `"target":"`...)
	b = append(b, e.target...)
	b = append(b, `","deliver_at":`...)
	b = strconv.AppendInt(b, m.due, 10)
	b = append(b, `,"body":"`...)
	b = append(b, m.body...)
	e.buf = append(b, `"}`...)
}

// The numbers of the fields in api/cicada/v1/cicada.proto; a test of the bench sends them to the
// real service.
const (
	tagMessages  = 1<<3 | 2 // SendRequest.messages
	tagID        = 1<<3 | 2
	tagTarget    = 2<<3 | 2
	tagDeliverAt = 3 << 3
	tagBody      = 6<<3 | 2
	tagResults   = 1<<3 | 2 // SendResponse.results
	tagReceipt   = 1<<3 | 2 // SendResult.receipt
)

func (e *encoder) protobuf(m message) {
	b := e.item[:0]
	if m.id != "" {
		b = appendField(b, tagID, m.id)
	}
	b = appendField(b, tagTarget, e.target)
	b = append(b, tagDeliverAt)
	b = binary.AppendUvarint(b, uint64(m.due))
	b = append(b, tagBody)
	b = binary.AppendUvarint(b, uint64(len(m.body)))
	b = append(b, m.body...)
	e.item = b
	e.buf = append(e.buf, tagMessages)
	e.buf = binary.AppendUvarint(e.buf, uint64(len(b)))
	e.buf = append(e.buf, b...)
}

func appendField(b []byte, tag byte, v string) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}
