// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/netip"

	"github.com/cicadamq/cicada/delay"
)

// Message is a message as a commit log holds it.
type Message struct {
	Topic      string
	Queue      int32
	Offset     int64 // in its queue
	Physical   int64 // in the commit log
	Size       int   // in the commit log
	Flag       int32 // the producer's
	SysFlag    int32
	Reconsumed int32 // how often a consumer gave it back
	Prepared   int64 // offset of the transaction's half
	Born       delay.Due
	Stored     delay.Due
	BornHost   netip.AddrPort
	StoreHost  netip.AddrPort
	Properties Properties
	Body       []byte // inflated; aliases what was decoded unless it had to be
	// Err says why Body cannot be read (its checksum is wrong, or it is packed in a way that is
	// not known here). It wraps delay.ErrCorrupt or delay.ErrUnimplemented. Everything else of the
	// message holds.
	Err error
}

// Bits of Message.SysFlag.
const (
	SysCompressed  = 0x1
	sysMultiTags   = 0x2
	sysTransaction = 0xc
	sysBornV6      = 0x10
	sysStoreV6     = 0x20
	sysUnwrap      = 0x40
	sysInnerBatch  = 0x80
	// SysPacked is the bits that say how a body is packed.
	SysPacked       = SysCompressed | sysPacking
	sysPacking      = 0x700 // which compression: 0 as before 5.0, which is zlib
	sysPackingLZ4   = 0x100
	sysPackingZstd  = 0x200
	sysPackingZlib  = 0x300
	magicV1         = 0xdaa320a7 // one byte for the length of the topic
	magicV2         = 0xdaa320ab // two
	checksumBits    = 0x7fffffff
	messageMinBytes = 88 + 1 + 2 // hosts of IPv4, nothing in it
)

// MaxInflated bounds a body after it was inflated.
const MaxInflated = 16 << 20

// DecodeMessages decodes the body of an answer: messages one after the other. On an error, which
// wraps delay.ErrCorrupt, it returns those before it.
func DecodeMessages(b []byte) ([]Message, error) { return decodeMessages(b, false) }

// decodeMessages is DecodeMessages; raw leaves bodies as they are packed.
func decodeMessages(b []byte, raw bool) ([]Message, error) {
	all := make([]Message, 0, min(MaxPull, len(b)/messageMinBytes))
	for len(b) > 0 {
		if len(b) < 4 {
			return all, fmt.Errorf("%w: %d bytes after message %d", delay.ErrCorrupt, len(b), len(all))
		}
		size := int64(binary.BigEndian.Uint32(b))
		if size < messageMinBytes || size > int64(len(b)) {
			return all, fmt.Errorf("%w: message %d: %d of %d bytes", delay.ErrCorrupt, len(all), size,
				len(b))
		}
		m, err := decodeMessage(b[:size], raw)
		if err != nil {
			return all, fmt.Errorf("message %d: %w", len(all), err)
		}
		all, b = append(all, m), b[size:]
	}
	return all, nil
}

// reader takes numbers off a buffer; once it was too short it stays failed.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint8() int {
	if b := r.take(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (r *reader) uint16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *reader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (r *reader) host(v6 bool) netip.AddrPort {
	n := 4
	if v6 {
		n = 16
	}
	ip, _ := netip.AddrFromSlice(r.take(n))
	return netip.AddrPortFrom(ip, uint16(r.int32()))
}

// decodeMessage decodes one message of exactly len(b) bytes.
func decodeMessage(b []byte, raw bool) (Message, error) {
	r := reader{b: b}
	m := Message{Size: int(r.int32())}
	magic := uint32(r.int32())
	if magic != magicV1 && magic != magicV2 {
		return m, fmt.Errorf("%w: magic %#x", delay.ErrCorrupt, magic)
	}
	sum := uint32(r.int32())
	m.Queue, m.Flag = r.int32(), r.int32()
	m.Offset, m.Physical = r.int64(), r.int64()
	m.SysFlag = r.int32()
	m.Born = delay.Due(r.int64())
	m.BornHost = r.host(m.SysFlag&sysBornV6 != 0)
	m.Stored = delay.Due(r.int64())
	m.StoreHost = r.host(m.SysFlag&sysStoreV6 != 0)
	m.Reconsumed = r.int32()
	m.Prepared = r.int64()
	m.Body = r.take(int(r.int32()))
	if magic == magicV2 {
		m.Topic = string(r.take(r.uint16()))
	} else {
		m.Topic = string(r.take(r.uint8()))
	}
	m.Properties = ParseProperties(string(r.take(int(int16(r.uint16())))))
	if r.short || len(r.b) > 0 {
		return m, fmt.Errorf("%w: its lengths disagree with its %d bytes", delay.ErrCorrupt, len(b))
	}
	if got := checksum(m.Body); got != sum&checksumBits {
		m.Err = fmt.Errorf("%w: body: checksum %#x, stored %#x", delay.ErrCorrupt, got, sum)
		return m, nil
	}
	if !raw {
		m.Err = m.unpack()
	}
	return m, nil
}

func checksum(body []byte) uint32 { return crc32.ChecksumIEEE(body) & checksumBits }

// unpack inflates the body. SysFlag no longer says that it is packed then.
func (m *Message) unpack() error {
	if m.SysFlag&(sysInnerBatch|sysUnwrap) != 0 {
		return fmt.Errorf("%w: a batch stored as one message", delay.ErrUnimplemented)
	}
	if m.SysFlag&SysCompressed == 0 {
		return nil
	}
	switch packing := m.SysFlag & sysPacking; packing {
	case 0, sysPackingZlib:
	case sysPackingLZ4:
		return fmt.Errorf("%w: body compressed by lz4", delay.ErrUnimplemented)
	case sysPackingZstd:
		return fmt.Errorf("%w: body compressed by zstd", delay.ErrUnimplemented)
	default:
		return fmt.Errorf("%w: body compressed by %#x", delay.ErrUnimplemented, packing)
	}
	z, err := zlib.NewReader(bytes.NewReader(m.Body))
	if err != nil {
		return fmt.Errorf("%w: inflate body: %w", delay.ErrCorrupt, err)
	}
	body, err := io.ReadAll(io.LimitReader(z, MaxInflated+1))
	if err == nil && len(body) > MaxInflated {
		err = errors.New("larger than 16 MiB")
	}
	if err != nil {
		return fmt.Errorf("%w: inflate body: %w", delay.ErrCorrupt, err)
	}
	m.Body = body
	m.SysFlag &^= SysCompressed | sysPacking
	return nil
}

// Append appends m as a commit log holds it; Size, Err and the kinds of the hosts are found out.
// What is too long for its field wraps delay.ErrInvalid.
func (m *Message) Append(dst []byte) ([]byte, error) {
	start := len(dst)
	properties, err := m.Properties.encode()
	if err != nil {
		return dst, err
	}
	magic := uint32(magicV1)
	if len(m.Topic) > math.MaxInt8 {
		magic = magicV2
	}
	if len(m.Topic) > math.MaxInt16 {
		return dst, fmt.Errorf("%w: topic of %d bytes", delay.ErrInvalid, len(m.Topic))
	}
	flags := m.SysFlag &^ (sysBornV6 | sysStoreV6)
	if m.BornHost.Addr().Is6() {
		flags |= sysBornV6
	}
	if m.StoreHost.Addr().Is6() {
		flags |= sysStoreV6
	}
	be := binary.BigEndian
	dst = be.AppendUint32(dst, 0)
	dst = be.AppendUint32(dst, magic)
	dst = be.AppendUint32(dst, checksum(m.Body))
	dst = be.AppendUint32(dst, uint32(m.Queue))
	dst = be.AppendUint32(dst, uint32(m.Flag))
	dst = be.AppendUint64(dst, uint64(m.Offset))
	dst = be.AppendUint64(dst, uint64(m.Physical))
	dst = be.AppendUint32(dst, uint32(flags))
	dst = be.AppendUint64(dst, uint64(m.Born))
	dst = appendHost(dst, m.BornHost)
	dst = be.AppendUint64(dst, uint64(m.Stored))
	dst = appendHost(dst, m.StoreHost)
	dst = be.AppendUint32(dst, uint32(m.Reconsumed))
	dst = be.AppendUint64(dst, uint64(m.Prepared))
	dst = be.AppendUint32(dst, uint32(len(m.Body)))
	dst = append(dst, m.Body...)
	if magic == magicV2 {
		dst = be.AppendUint16(dst, uint16(len(m.Topic)))
	} else {
		dst = append(dst, byte(len(m.Topic)))
	}
	dst = append(dst, m.Topic...)
	dst = be.AppendUint16(dst, uint16(len(properties)))
	dst = append(dst, properties...)
	be.PutUint32(dst[start:], uint32(len(dst)-start))
	return dst, nil
}

func appendHost(dst []byte, host netip.AddrPort) []byte {
	addr := host.Addr()
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
	}
	dst = append(dst, addr.AsSlice()...)
	return binary.BigEndian.AppendUint32(dst, uint32(host.Port()))
}

// encode is Encode with the store's limit instead of a sender's.
func (p Properties) encode() (string, error) {
	b, err := p.appendTo(nil, math.MaxInt16)
	return string(b), err
}

// MessageID is the id a broker gives: where a message is stored.
func (m *Message) MessageID() string {
	b := m.StoreHost.Addr().AsSlice()
	b = binary.BigEndian.AppendUint32(b, uint32(m.StoreHost.Port()))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Physical))
	return hex.EncodeToString(b)
}

// ParseMessageID reads an id a broker gave. What is none wraps delay.ErrInvalid.
func ParseMessageID(id string) (host netip.AddrPort, physical int64, err error) {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != 4+4+8 && len(b) != 16+4+8 {
		return host, 0, fmt.Errorf("%w: message id %.60q", delay.ErrInvalid, id)
	}
	r := reader{b: b}
	host = r.host(len(b) == 16+4+8)
	return host, r.int64(), nil
}
