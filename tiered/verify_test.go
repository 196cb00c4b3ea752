// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// A verify takes long and runs beside the owner: what the owner collects meanwhile must not be told
// as damage, and what is listed and gone must.
func TestVerifyBesideTheOwner(t *testing.T) {
	w := newWorld(t, Options{DeleteGrace: time.Second})
	w.commit(Cut{Rows: rowsOf(1, 3)})
	r := w.open(w.bucket, Options{ReadOnly: true})
	_, err := r.Load(t.Context())
	require.NoError(t, err)
	gone := r.State().Segments[0].Name
	w.commit(Cut{Rows: rowsOf(10, 20), Watermark: key(5)})

	now := key(9).Due.Add(time.Hour)
	for range 3 {
		_, err = w.tier.Collect(t.Context(), upkeepAt(now, time.Second))
		require.NoError(t, err)
		now = now.Add(time.Minute)
	}
	require.NotContains(t, w.keys(), gone)
	report, err := r.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, report.Problems)

	_, err = r.Load(t.Context())
	require.NoError(t, err)
	lost := r.State().Segments[0].Name
	require.NoError(t, w.bucket.Delete(t.Context(), r.Prefix()+lost))
	report, err = r.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, report.Problems, 1)
	require.Equal(t, lost, report.Problems[0].Name)
	require.ErrorIs(t, report.Problems[0].Err, delay.ErrCorrupt)
}
