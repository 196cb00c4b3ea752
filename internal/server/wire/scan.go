// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"github.com/cicadamq/cicada/delay"
)

// maxDepth bounds the nesting of values that are skipped because their field is unknown.
const maxDepth = 32

// scanner walks one JSON text (RFC 8259, nothing looser) in place: strings it returns alias the
// text, and escapes are resolved where they stand, which is possible because no escape is shorter
// than what it stands for. The first syntax error sticks: after it every method returns zeros.
type scanner struct {
	b   []byte
	at  int
	err error
}

func (s *scanner) reset(b []byte) { s.b, s.at, s.err = b, 0, nil }

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("%w: JSON, byte %d: %s", delay.ErrInvalid, s.at,
			fmt.Sprintf(format, args...))
	}
}

// peek skips white space and returns the next byte, 0 at the end or after an error.
func (s *scanner) peek() byte {
	if s.err != nil {
		return 0
	}
	for s.at < len(s.b) {
		c := s.b[s.at]
		if c > ' ' {
			return c
		}
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			break
		}
		s.at++
	}
	if s.at < len(s.b) {
		return s.b[s.at]
	}
	return 0
}

// want consumes c or fails.
func (s *scanner) want(c byte) bool {
	if s.peek() != c {
		s.unexpected(string(rune(c)))
		return false
	}
	s.at++
	return true
}

func (s *scanner) unexpected(wanted string) {
	if s.at >= len(s.b) {
		s.fail("unexpected end, want %s", wanted)
		return
	}
	s.fail("unexpected %q, want %s", s.b[s.at], wanted)
}

// end fails unless only white space is left.
func (s *scanner) end() {
	if s.peek() != 0 || s.err == nil && s.at < len(s.b) {
		s.fail("unexpected %q after the value", s.b[s.at])
	}
}

// more reports whether another element follows in the object or array that end ends, consuming
// the comma before it or end.
func (s *scanner) more(first bool, end byte) bool {
	switch c := s.peek(); {
	case c == end:
		s.at++
		return false
	case first && s.err == nil:
		return true
	case c == ',':
		s.at++
		if s.peek() == end {
			s.unexpected("a value")
			return false
		}
		return s.err == nil
	}
	s.unexpected("a comma or " + string(rune(end)))
	return false
}

// name reads the name of an object's member and the colon after it.
func (s *scanner) name() string {
	if s.peek() != '"' {
		s.unexpected("a field name")
		return ""
	}
	name, ok := s.str()
	if !ok && s.err == nil {
		s.fail("field name is not valid UTF-8")
	}
	s.want(':')
	return text(name)
}

// text views b as a string. It stays valid as long as the scanned text is not reused.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// plain returns the length of the prefix of b without quote, backslash and control characters, and
// whether it is all ASCII. Eight bytes at a time: a byte is found by the borrow of a subtraction,
// exact for the lowest one.
func plain(b []byte) (n int, ascii bool) {
	var seen uint64
	for len(b)-n >= 8 {
		x := binary.LittleEndian.Uint64(b[n:])
		quote, slash := x^0x2222222222222222, x^0x5c5c5c5c5c5c5c5c
		stop := ((quote - lowBits) &^ quote) | ((slash - lowBits) &^ slash) |
			((x - 0x2020202020202020) &^ x)
		if stop &= highBits; stop != 0 {
			n += bits.TrailingZeros64(stop) / 8
			return n, (seen|x&(stop&-stop-1))&highBits == 0
		}
		seen |= x
		n += 8
	}
	for n < len(b) && b[n] != '"' && b[n] != '\\' && b[n] >= 0x20 {
		seen |= uint64(b[n])
		n++
	}
	return n, seen&highBits == 0
}

// str reads a string. It returns false when the string is not valid UTF-8 or has half a surrogate
// pair, and the scan goes on behind it: the caller refuses the field.
func (s *scanner) str() ([]byte, bool) {
	if !s.want('"') {
		return nil, false
	}
	start := s.at
	n, ascii := plain(s.b[s.at:])
	s.at += n
	if s.at < len(s.b) && s.b[s.at] == '"' { // nearly always
		v := s.b[start:s.at:s.at]
		s.at++
		return v, ascii || utf8.Valid(v)
	}
	w, paired := s.at, true
	for s.at < len(s.b) {
		switch c := s.b[s.at]; {
		case c == '"':
			s.at++
			v := s.b[start:w:w]
			return v, paired && utf8.Valid(v)
		case c == '\\':
			r, ok := s.escape()
			if s.err != nil {
				return nil, false
			}
			paired = paired && ok
			w = len(utf8.AppendRune(s.b[:w], r)) // in place: the escape was longer
		case c < 0x20:
			s.fail("control character %#02x in a string", c)
			return nil, false
		}
		n, _ := plain(s.b[s.at:])
		w += copy(s.b[w:], s.b[s.at:s.at+n])
		s.at += n
	}
	s.fail("unexpected end of a string")
	return nil, false
}

// escape reads one escape, or two that make a surrogate pair, and returns false for half a pair.
func (s *scanner) escape() (rune, bool) {
	if s.at+1 >= len(s.b) {
		s.fail("unexpected end of an escape")
		return 0, false
	}
	c := s.b[s.at+1]
	if c != 'u' {
		const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
		for i := range len(from) {
			if from[i] == c {
				s.at += 2
				return rune(to[i]), true
			}
		}
		s.fail("unknown escape \\%q", c)
		return 0, false
	}
	r := s.hex4(s.at + 2)
	if r < 0 {
		s.fail("escape \\u without four hexadecimal digits")
		return 0, false
	}
	s.at += 6
	if !utf16.IsSurrogate(r) {
		return r, true
	}
	if s.at+1 < len(s.b) && s.b[s.at] == '\\' && s.b[s.at+1] == 'u' {
		if pair := utf16.DecodeRune(r, s.hex4(s.at+2)); pair != utf8.RuneError {
			s.at += 6
			return pair, true
		}
	}
	return utf8.RuneError, false
}

func (s *scanner) hex4(at int) rune {
	if at+4 > len(s.b) {
		return -1
	}
	var r rune
	for _, c := range s.b[at : at+4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// number reads a number and returns its text.
func (s *scanner) number() []byte {
	minus := s.peek() == '-'
	start := s.at
	if minus {
		s.at++
	}
	if s.at < len(s.b) && s.b[s.at] == '0' {
		s.at++
	} else if !s.figures() {
		return nil
	}
	if s.at < len(s.b) && s.b[s.at] == '.' {
		s.at++
		if !s.figures() {
			return nil
		}
	}
	if s.at < len(s.b) && s.b[s.at]|0x20 == 'e' {
		s.at++
		if s.at < len(s.b) && (s.b[s.at] == '+' || s.b[s.at] == '-') {
			s.at++
		}
		if !s.figures() {
			return nil
		}
	}
	return s.b[start:s.at]
}

func (s *scanner) figures() bool {
	start := s.at
	for s.at < len(s.b) && s.b[s.at]-'0' <= 9 {
		s.at++
	}
	if s.at == start {
		s.unexpected("a digit")
	}
	return s.at > start
}

// integer returns the value of a number's text when it is an integer that fits.
func integer(number []byte) (int64, bool) {
	v, err := strconv.ParseInt(text(number), 10, 64)
	return v, err == nil
}

// millis returns the value of a number's text in whole milliseconds, rounded up; what does not fit
// saturates, to be refused by its range.
func millis(number []byte) int64 {
	if v, ok := integer(number); ok {
		return v
	}
	f, err := strconv.ParseFloat(text(number), 64)
	f = math.Ceil(f)
	switch {
	case err != nil && f > 0, f >= math.MaxInt64:
		return math.MaxInt64
	case err != nil, f <= math.MinInt64:
		return math.MinInt64
	}
	return int64(f)
}

// word consumes a literal.
func (s *scanner) word(w string) bool {
	s.peek()
	if len(s.b)-s.at < len(w) || string(s.b[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

// skip reads any value and forgets it.
func (s *scanner) skip(depth int) {
	switch c := s.peek(); {
	case s.err != nil:
	case depth > maxDepth:
		s.fail("nested deeper than %d", maxDepth)
	case c == '"':
		s.str()
	case c == '{':
		s.at++
		for first := true; s.more(first, '}'); first = false {
			s.name()
			s.skip(depth + 1)
		}
	case c == '[':
		s.at++
		for first := true; s.more(first, ']'); first = false {
			s.skip(depth + 1)
		}
	case c == '-' || c-'0' <= 9:
		s.number()
	case !s.word("true") && !s.word("false") && !s.word("null"):
		s.unexpected("a value")
	}
}
