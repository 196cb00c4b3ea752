// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cicadamq/cicada/delay"
)

// protobufBatch is a batch of n items, each with m empty fields of number 7.
func protobufBatch(n, m int) []byte {
	item := bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), nil), m)
	one := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), item)
	return bytes.Repeat(one, n)
}

// jsonBatch is the same in JSON.
func jsonBatch(n, m int) []byte {
	item := `{"headers":[` + strings.TrimSuffix(strings.Repeat("{},", m), ",") + `]}`
	return []byte(`{"messages":[` + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + `]}`)
}

// A batch of empty messages is small on the wire and gigabytes once decoded: it must be refused by
// its shape, and the largest batch that is allowed must pass.
func TestShapes(t *testing.T) {
	for _, c := range []struct {
		name        string
		items, each int
		ok          bool
	}{
		{"nothing", 0, 0, true}, {"most", 10_000, 0, true}, {"most with headers", 10_000, 64, true},
		{"one more", 10_001, 0, false}, {"bomb", 3_000_000, 0, false},
		{"bomb of headers", 1, 2_000_000, false}, {"bomb of both", 5000, 400, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, err := range []error{
				Protobuf(protobufBatch(c.items, c.each), 10_000), JSON(jsonBatch(c.items, c.each), 10_000),
			} {
				if c.ok {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, delay.ErrInvalid)
				}
			}
		})
	}
	deep := strings.Repeat("[", 1_000_000)
	require.ErrorIs(t, JSON([]byte(deep), 10), delay.ErrInvalid)
	require.NoError(t, JSON([]byte(`{"a":"`+strings.Repeat(`{[\"`, 1000)+`"}`), 10), "in a string")
}

// Whatever bytes come, they must be judged without a panic, and truly large batches be refused.
func FuzzShapes(f *testing.F) {
	f.Add(protobufBatch(3, 2))
	f.Add(jsonBatch(3, 2))
	f.Add([]byte(`{"a":"\`))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = Protobuf(b, 2), JSON(b, 2)
		require.Error(t, Protobuf(append(protobufBatch(3, 0), b...), 2))
	})
}
