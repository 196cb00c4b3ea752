// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"testing"

	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/objstoretest"
)

func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Bucket { return New(Options{}) })
}
