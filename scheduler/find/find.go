// SPDX-License-Identifier: Apache-2.0

// Package find looks messages up in the local store: by id or key, with the bulk cancels that may
// cover what is cold.
//
//	id --index--> key --rows, parked rows, marks--> Located{Place, Record}
//
// It writes nothing, so that a crash leaves nothing behind. What is found may have changed by the
// time the caller acts; the committer looks again under its own lock on the order of things.
package find

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// Place is where the row of a pending message is.
type Place uint8

// The places.
const (
	PlaceNone   Place = iota // finished or never there
	PlaceRow                 // a local row
	PlaceParked              // a parked row
	PlaceCold                // only in the bucket
)

// Located is what the local store knows of a message.
type Located struct {
	ID      delay.ID
	Rec     localstore.IDRecord
	Known   bool // Rec is of the id index, or made up for an id that was issued
	Key     delay.Key
	Place   Place
	Lane    uint64 // of a parked row
	Claimed bool   // of a parked row: it was claimed before it was parked
	Record  []byte // of a row; nil for cold and finished messages
}

// Finder looks messages up in the local store. It is safe for concurrent use; what it finds may
// have changed by the time the caller acts, so the committer looks again.
type Finder struct {
	store  *localstore.Store
	ids    delay.IDMaker
	shard  delay.Shard
	issued func(delay.Seq) bool
	bulk   *Bulk
}

// New makes a Finder. issued tells whether a seq was given to a message.
func New(
	store *localstore.Store, ids delay.IDMaker, shard delay.Shard, issued func(delay.Seq) bool,
	bulk *Bulk,
) *Finder {
	return &Finder{store: store, ids: ids, shard: shard, issued: issued, bulk: bulk}
}

// Bulk is the bulk cancels of the shard. What is found in PlaceCold may be covered by one of them.
func (f *Finder) Bulk() *Bulk { return f.bulk }

// Locate finds the current generation of id. Place is PlaceNone for what is finished or unknown;
// then Known tells which, with Rec.State. ErrUnavailable while ids are being restored (rule R14).
func (f *Finder) Locate(id delay.ID) (Located, error) {
	rec, known, err := f.store.LookupID(string(id))
	if err != nil {
		return Located{}, fmt.Errorf("look up id: %w", err)
	}
	kind, shard, key := f.ids.Parse(id)
	// What has ended may be an earlier generation than the id names (rule R14).
	doubtful := !known || rec.State.Finished()
	if doubtful && kind != delay.ServerID && !f.store.Meta().IDsComplete {
		return Located{}, fmt.Errorf("%w: ids are being restored", delay.ErrUnavailable)
	}
	if known {
		if rec.State.Finished() {
			return Located{ID: id, Rec: rec, Known: true, Key: rec.Key}, nil
		}
		loc, err := f.LocateKey(rec.Key)
		loc.ID, loc.Rec, loc.Known = id, rec, true
		return loc, err
	}
	if kind != delay.ServerID || shard != f.shard || !f.issued(key.Seq) {
		return Located{ID: id}, nil
	}
	loc, err := f.LocateKey(key)
	loc.ID = id
	if loc.Place == PlaceNone && err == nil {
		// Authentic, issued, without a trace: delivered. Other outcomes leave an id record (R14).
		loc.Known, loc.Rec.State = true, delay.Delivered
		loc.Rec.Key, loc.Rec.Generation = key, 1
	}
	return loc, err
}

// LocateKey finds the row of a key that is not known to be finished.
func (f *Finder) LocateKey(key delay.Key) (Located, error) {
	loc := Located{Key: key}
	rec, err := f.store.Row(key)
	switch {
	case err == nil:
		loc.Place, loc.Record = PlaceRow, rec
		return loc, nil
	case !errors.Is(err, delay.ErrNotFound):
		return loc, fmt.Errorf("read row %s: %w", key, err)
	}
	lane, parked, err := f.store.ParkedLane(key)
	if err != nil {
		return loc, fmt.Errorf("read parked row %s: %w", key, err)
	}
	if parked {
		loc.Place, loc.Lane = PlaceParked, lane
		loc.Record, loc.Claimed, err = f.store.Parked(lane, key)
		return loc, err
	}
	if key.Less(f.store.Meta().Boundary) {
		return loc, nil
	}
	_, marked, err := f.store.Mark(key)
	if err == nil && !marked {
		loc.Place = PlaceCold
	}
	return loc, err
}

// Rows are rows of a lane that were there at one moment, by key.
type Rows map[delay.Key]Located

// Rows reads many keys of a lane in two runs, of rows and of parked rows: what is due together lies
// together. What it does not find, or cannot read, LocateKey says.
func (f *Finder) Rows(lane delay.Target, keys []delay.Key) Rows {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, delay.Key.Compare)
	keys = slices.Compact(keys)
	found, rest := make(Rows, len(keys)), keys[:0:0]
	err := f.store.ReadRows(keys, func(i int, rec []byte) {
		if rec == nil {
			rest = append(rest, keys[i])
			return
		}
		found[keys[i]] = Located{Key: keys[i], Place: PlaceRow, Record: slices.Clone(rec)}
	})
	if err != nil {
		return nil
	}
	hash := lane.Hash()
	err = f.store.ReadParked(hash, rest, func(i int, claimed bool, rec []byte) {
		if rec != nil {
			found[rest[i]] = Located{
				Key: rest[i], Place: PlaceParked, Lane: hash, Claimed: claimed,
				Record: slices.Clone(rec),
			}
		}
	})
	if err != nil {
		return nil
	}
	return found
}
