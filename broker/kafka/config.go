// SPDX-License-Identifier: Apache-2.0

package kafka

import "github.com/cicadamq/cicada/broker/kafka/internal/client"

// Config says how to reach one cluster.
type Config = client.Config

// SASL is a user and how the password is shown to the broker.
type SASL = client.SASL

// The SASL mechanisms.
const (
	Plain       = client.Plain
	ScramSHA256 = client.ScramSHA256
	ScramSHA512 = client.ScramSHA512
)
