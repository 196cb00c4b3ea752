// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
)

// formatKey is the object that says which cluster the bucket belongs to.
const formatKey = "v1/cluster/format"

// The folders of a shard. No name holds anything a user chose.
const (
	l0Folder    = "l0/"
	l1Folder    = "l1/"
	keptFolder  = "kept/"
	marksFolder = "marks/"
	manifestKey = "manifest"
)

// extensions by folder.
func extension(folder string) string {
	if folder == marksFolder {
		return ".mrk"
	}
	return ".seg"
}

// shardPrefix begins the names of a shard. Two hex digits of a hash come first, so that a store
// that splits its key space by prefix splits it by shard and not by time.
func shardPrefix(shard delay.Shard) string {
	s := strconv.Itoa(int(shard))
	return fmt.Sprintf("v1/%02x/%s/", byte(codec.Hash64("shard "+s)>>56), s)
}

// objectID is the unique part of a name: 48 bits of milliseconds, 80 random bits.
type objectID = [16]byte

var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").
	WithPadding(base32.NoPadding)

func objectName(folder string, epoch delay.Epoch, id objectID) string {
	return fmt.Sprintf("%s%07d-%s%s", folder, epoch, idEncoding.EncodeToString(id[:]),
		extension(folder))
}

// parseName gives back what objectName joined.
func parseName(name string) (epoch delay.Epoch, id objectID, err error) {
	base := strings.TrimSuffix(path.Base(name), path.Ext(name))
	number, text, ok := strings.Cut(base, "-")
	n, err := strconv.ParseUint(number, 10, 20)
	raw, decodeErr := idEncoding.DecodeString(text)
	if !ok || err != nil || decodeErr != nil || len(raw) != len(id) {
		return 0, id, fmt.Errorf("%w: object name %q", delay.ErrCorrupt, name)
	}
	copy(id[:], raw)
	return delay.Epoch(n), id, nil
}

// dice is a rand.Rand for several goroutines.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

// id is a fresh object id, made at now.
func (d *dice) id(now delay.Due) objectID {
	d.mu.Lock()
	defer d.mu.Unlock()
	var id objectID
	binary.BigEndian.PutUint64(id[:], uint64(now)<<16|uint64(d.rng.Uint32()&0xffff))
	binary.BigEndian.PutUint64(id[8:], d.rng.Uint64())
	return id
}

func (d *dice) float() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.Float64()
}
