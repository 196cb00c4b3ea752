// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cicadamq/cicada/delay"
)

// Bounds of a batch before it is decoded: a decoder makes a structure of hundreds of bytes of two
// bytes of input.
const (
	mostParts = 1_000_000 // fields or objects in a request
	mostDepth = 16        // of brackets
)

// Protobuf refuses a batch, a message whose field 1 is repeated, with more than most items, or with
// very many fields in them. What is not protobuf is left to the decoder.
func Protobuf(b []byte, most int) error {
	items, parts := 0, 0
	for len(b) > 0 {
		no, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		size := protowire.ConsumeFieldValue(no, kind, b[n:])
		if size < 0 {
			return nil
		}
		if parts++; no == 1 && kind == protowire.BytesType {
			items++
			parts += fields(b[n : n+size])
		}
		if items > most || parts > mostParts {
			return tooMany(most)
		}
		b = b[n+size:]
	}
	return nil
}

// fields is how many fields an embedded message with its length has.
func fields(b []byte) int {
	b, _ = protowire.ConsumeBytes(b)
	count := 0
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return count
		}
		count++
		b = b[n:]
	}
	return count
}

// JSON refuses a batch, an object with an array of objects, with more than most items, with very
// many objects in them, or nested deeper than any request. What is not JSON is left to the decoder.
func JSON(b []byte, most int) error {
	depth, items, parts := 0, 0, 0
	quoted := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth == 3 && c == '{' {
				items++
			}
			parts++
			if items > most || parts > mostParts {
				return tooMany(most)
			}
			if depth > mostDepth {
				return fmt.Errorf("%w: nested deeper than %d", delay.ErrInvalid, mostDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

func tooMany(most int) error {
	return delay.Invalid("messages", "more than %d messages in a batch, or very many fields", most)
}
