// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"encoding/binary"
	"fmt"

	"github.com/cicadamq/cicada/delay"
)

// The spaces: the first byte of every key. The second is the shard.
const (
	spaceRow      = 'm'
	spaceParked   = 'p'
	spaceWhere    = 'q' // the lane that a key is parked in
	spaceID       = 'k'
	spaceAttempts = 'a'
	spaceDead     = 'd'
	spaceLease    = 'l'
	spaceMark     = 'x'
	spaceOutbox   = 'f'
	spaceTimer    = 'e'
	spaceCursor   = 'c'
	spaceTarget   = 't'
	spaceBulk     = 'b'
	spaceLedger   = 'h'
	spaceMeta     = 'g'
)

// The kinds of keys within the ledger and the meta space: the third byte.
const (
	ledgerDelta = 'd' // ring index, 2 bytes
	ledgerBase  = 'b'
	ledgerSlot  = 's' // slot number, 4 bytes
	ledgerLane  = 'l' // lane, 8 bytes

	metaVersion = 'v'
	metaMeta    = 'm'
	metaBooks   = 'b'
)

const (
	prefixLen  = 2
	rowKeyLen  = prefixLen + delay.KeySize
	laneLen    = 8
	parkKeyLen = prefixLen + laneLen + delay.KeySize
	dueLen     = 8
)

// putRowKey writes the key of space into dst, which has rowKeyLen bytes.
func putRowKey(dst []byte, space byte, shard delay.Shard, k delay.Key) {
	dst[0], dst[1] = space, byte(shard)
	binary.BigEndian.PutUint64(dst[prefixLen:], uint64(k.Due))
	binary.BigEndian.PutUint64(dst[prefixLen+dueLen:], uint64(k.Seq))
}

func (s *Store) key(space byte, k delay.Key) []byte {
	b := make([]byte, rowKeyLen)
	putRowKey(b, space, s.opts.Shard, k)
	return b
}

func (s *Store) prefix(space byte) []byte { return []byte{space, byte(s.opts.Shard)} }

func (s *Store) numberKey(space byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(s.prefix(space), n)
}

func (s *Store) textKey(space byte, text string) []byte {
	return append(s.prefix(space), text...)
}

func (s *Store) lanePrefix(lane uint64) []byte { return s.numberKey(spaceParked, lane) }

func (s *Store) parkedKey(lane uint64, k delay.Key) []byte {
	return delay.AppendKey(s.lanePrefix(lane), k)
}

func (s *Store) timerKey(at delay.Due, kind byte, payload []byte) []byte {
	key := make([]byte, 0, prefixLen+8+1+len(payload))
	key = binary.BigEndian.AppendUint64(append(key, spaceTimer, byte(s.opts.Shard)), uint64(at))
	return append(append(key, kind), payload...)
}

func (s *Store) metaKey(kind byte) []byte { return append(s.prefix(spaceMeta), kind) }

func (s *Store) ledgerKey(kind byte) []byte { return append(s.prefix(spaceLedger), kind) }

func (s *Store) deltaKey(batch uint64) []byte {
	return binary.BigEndian.AppendUint16(s.ledgerKey(ledgerDelta), uint16(batch%ringSize))
}

func (s *Store) slotKey(n uint32) []byte {
	return binary.BigEndian.AppendUint32(s.ledgerKey(ledgerSlot), n)
}

func (s *Store) laneKey(lane uint64) []byte {
	return binary.BigEndian.AppendUint64(s.ledgerKey(ledgerLane), lane)
}

// after is the smallest key above all that start with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// rowKeyOf reads the delay.Key at the end of a stored key whose prefix has n bytes.
func rowKeyOf(stored []byte, n int) (delay.Key, error) {
	if len(stored) != n+delay.KeySize {
		return delay.Key{}, badKey(stored)
	}
	k, ok := delay.DecodeKey(stored[n:])
	if !ok {
		return delay.Key{}, badKey(stored)
	}
	return k, nil
}

func badKey(stored []byte) error {
	return fmt.Errorf("%w: key %x", delay.ErrCorrupt, stored)
}
