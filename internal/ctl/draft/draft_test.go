// SPDX-License-Identifier: Apache-2.0

package draft

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// A body must arrive byte for byte, and one that is too large must not be sent cut.
func TestBody(t *testing.T) {
	for stdin, field := range map[string]string{"text": "body", "\xff\x00": "body_base64"} {
		m := map[string]any{}
		require.NoError(t, Body(m, strings.NewReader(stdin), "-"))
		require.Contains(t, m, field)
		require.Len(t, m, 1)
	}
	m := map[string]any{}
	whole := strings.Repeat("x", delay.MaxBodyBytes)
	require.NoError(t, Body(m, strings.NewReader(whole), "-"))
	require.Equal(t, whole, m["body"])
	require.ErrorContains(t, Body(m, strings.NewReader(whole+"x"), "-"), "4 MiB")
	require.ErrorContains(t, Body(m, nil, "@/nonexistent"), "read body")
}

// Of two headers of one name one would be lost.
func TestHeaders(t *testing.T) {
	m, err := Headers([]string{"a=b=c", "d="})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "b=c", "d": ""}, m)
	for _, bad := range [][]string{{"a"}, {"=x"}, {"a=1", "a=2"}} {
		_, err := Headers(bad)
		require.Error(t, err, bad)
	}
}
