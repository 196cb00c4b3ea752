// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// Body is a content that names its message.
func Body(r *rand.Rand, no int) []byte {
	b := fmt.Appendf(nil, "m%d;", no)
	for range r.IntN(40) {
		b = append(b, byte(r.IntN(256)))
	}
	return b
}

// Number is that of the message that a Body names.
func Number(body []byte) (no int, ok bool) {
	digits, ok := bytes.CutPrefix(body, []byte("m"))
	end := bytes.IndexByte(digits, ';')
	if !ok || end < 0 {
		return 0, false
	}
	for _, c := range digits[:end] {
		no = no*10 + int(c-'0')
	}
	return no, true
}
