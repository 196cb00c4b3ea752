// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"testing"

	"go.uber.org/goleak"
)

// A closed store leaves nothing running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
