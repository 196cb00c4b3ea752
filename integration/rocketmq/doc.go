// SPDX-License-Identifier: Apache-2.0

// Package rocketmq shows on real brokers that RocketMQ loses delayed messages whose commit log
// expires before they are due, and that it loses none with Cicada beside it.
//
//	Plan --> Cluster: send early and doomed -> fill the log -> send late -> expire the log -> wait
//	            |                                                                             |
//	            +-- name server, broker, official client            Judge <-- what consumers got
//	            +-- Daemon (with Cicada)                              |
//	                                                                  +-- delivered, lost, twice, ...
//
// A Plan is made from a seed: delay levels and timers with bodies, KEYS, TAGS, flags, properties and
// queues in any order. Its messages are early (due before the log expires), doomed (in the part of
// the log that expires), late (in the part that stays) and recalled. A Cluster is driven by
// RocketMQ's official Java client alone, which neither side of the comparison has a part in.
//
// The tests of module integration assert both outcomes; rocketmq/demo tells the story to people,
// and rocketmq/bench measures. It needs Java 17 and, the first time, Maven.
package rocketmq
