// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// Place describes where in a store the message of an id is, for a person who looks for it.
func Place(store *localstore.Store, ids delay.IDMaker, id delay.ID) string {
	if id == "" {
		return "unnamed"
	}
	rec, known, _ := store.LookupID(string(id))
	key := rec.Key
	if !known {
		_, _, key = ids.Parse(id)
	}
	_, row := store.Row(key)
	_, parked, _ := store.ParkedLane(key)
	_, _, dead := store.Dead(key)
	_, marked, _ := store.Mark(key)
	meta := store.Meta()
	return fmt.Sprintf("%s known %v %s row %v parked %v dead %v mark %v, above boundary %v, "+
		"above watermark %v", key, known, rec.State, row == nil, parked, dead == nil, marked,
		!key.Less(meta.Boundary), !key.Less(meta.Watermark))
}
