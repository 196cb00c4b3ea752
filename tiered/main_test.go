// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"testing"

	"go.uber.org/goleak"
)

// No read may leave a goroutine behind, however it ends.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
