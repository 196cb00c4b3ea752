// SPDX-License-Identifier: Apache-2.0

// Package kafka is the broker.Sink of Kafka clusters; the broker.Source is package source below it.
//
//	lanes  --Deliver--> records --> topics                               idempotent
//	lanes  --Deliver--> window  --> one transaction: records + ledger    exactly once
//
// See also packages source and ledger, broker/source.go and docs/operations.md.
package kafka
