// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/internal/server/tierjson"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// tierInfo is what GET /v1/tier shows.
func (d *Daemon) tierInfo() tierjson.Info {
	b := d.cfg.Bucket
	info := tierjson.Info{
		Bucket: b.String(), State: d.tier.State(), Stats: d.tier.Stats(), Probed: d.probed.Load(),
		SameDisk: b.Kind == config.FileBucket && sameDisk(d.cfg.DataDir, b.Dir),
	}
	if c, ok := d.bucket.(objstore.Clock); ok {
		if remote, local, known := c.RemoteTime(); known {
			info.StoreTime, info.LocalTime = remote, local
		}
	}
	return info
}
