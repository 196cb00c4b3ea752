// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	cicadav1 "github.com/cicadamq/cicada/api/cicada/v1"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/limit"
	"github.com/cicadamq/cicada/internal/server/wire"
)

// Bounds of the body of a procedure.
const (
	bodyStep = 64 << 10 // counted in flight at a time
	// bodyCopies is how often the bytes of a request are in memory: as they came, and decoded.
	bodyCopies = 2
)

// rpcBody counts what arrives, and only that: an announcement costs a client nothing (W5).
type rpcBody struct {
	io.ReadCloser
	call    *call
	most    int64 // bytes
	read    int64
	claimed int64
}

// Read reads what there is room for. Its errors are those of the procedure.
func (b *rpcBody) Read(p []byte) (int, error) {
	if b.read >= b.claimed {
		step := int64(bodyStep)
		if left := b.call.ContentLength - b.read; left > 0 {
			step = min(step, left)
		}
		if err := b.call.claim(step * bodyCopies); err != nil {
			return 0, b.call.server.connectError(err)
		}
		b.claimed += step
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.claimed-b.read)])
	if b.read += int64(n); b.read > b.most {
		return 0, b.call.server.connectError(
			fmt.Errorf("%w: more than %d bytes", delay.ErrInvalid, b.most))
	}
	return n, err
}

// boundedProto is protobuf's binary form, with the size of what it makes bounded before it does.
type boundedProto struct{}

// Name is the name of the content type that the codec serves.
func (boundedProto) Name() string { return "proto" }

// Marshal encodes a message.
func (boundedProto) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode %T: not a protobuf message", v)
	}
	return proto.Marshal(m)
}

// Unmarshal decodes a message.
func (boundedProto) Unmarshal(b []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("decode %T: not a protobuf message", v)
	}
	if _, ok := v.(*cicadav1.SendRequest); ok {
		if err := limit.Protobuf(b, wire.MaxBatch); err != nil {
			return err
		}
	}
	return proto.Unmarshal(b, m)
}
