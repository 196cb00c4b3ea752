// SPDX-License-Identifier: Apache-2.0

// Package kafka is the broker.Source and broker.Sink of Kafka clusters.
package kafka
