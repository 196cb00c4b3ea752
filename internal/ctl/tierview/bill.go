// SPDX-License-Identifier: Apache-2.0

package tierview

import (
	"math"
	"time"
)

// The prices that an estimate takes unless told otherwise: S3 Standard in us-east-1, in dollars.
const (
	DefaultStoragePrice = 0.023 // of a GB for a month
	DefaultPutPrice     = 5.0   // of a million PUT and LIST requests
	DefaultGetPrice     = 0.4   // of a million GET requests
)

const (
	month   = 30 * 24 * time.Hour
	gb      = 1 << 30
	million = 1e6
)

// Prices are in dollars.
type Prices struct {
	Storage float64 `json:"storage_gb_month"`
	Put     float64 `json:"put_million"` // PUT and LIST
	Get     float64 `json:"get_million"`
}

// Usage is what a month is estimated from.
type Usage struct {
	Stored     int64 // bytes in the bucket now
	Puts, Gets int64 // requests, failed ones included: those are billed too
	Over       time.Duration
}

// Bill is an estimate of a month of 30 days: what is stored now stays, and requests come at the
// rate of the time that was measured. Deletes are free.
type Bill struct {
	Storage float64 `json:"storage_usd"`
	Puts    float64 `json:"put_usd"`
	Gets    float64 `json:"get_usd"`
	Total   float64 `json:"total_usd"`

	PutsPerMonth int64   `json:"puts_per_month"`
	GetsPerMonth int64   `json:"gets_per_month"`
	Measured     float64 `json:"measured_seconds"`
	Prices       Prices  `json:"prices"`
}

// BillOf estimates a month.
func BillOf(u Usage, p Prices) Bill {
	b := Bill{
		Storage: float64(u.Stored) / gb * p.Storage, Measured: u.Over.Seconds(), Prices: p,
	}
	if u.Over > 0 {
		scale := month.Seconds() / u.Over.Seconds()
		b.PutsPerMonth = int64(float64(u.Puts) * scale)
		b.GetsPerMonth = int64(float64(u.Gets) * scale)
	}
	b.Puts = float64(b.PutsPerMonth) / million * p.Put
	b.Gets = float64(b.GetsPerMonth) / million * p.Get
	b.Total = round(b.Storage + b.Puts + b.Gets)
	b.Storage, b.Puts, b.Gets = round(b.Storage), round(b.Puts), round(b.Gets)
	return b
}

// round leaves as many digits as an estimate is worth, and more.
func round(v float64) float64 { return math.Round(v*million) / million }
