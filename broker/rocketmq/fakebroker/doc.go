// SPDX-License-Identifier: Apache-2.0

// Package fakebroker is a RocketMQ cluster in memory, for tests: a name server and brokers that
// speak the part of the protocol that package remoting asks for, over real connections.
//
//	Cluster --+-- name server (one address)
//	          +-- Broker "a" --- commit log . queues . delay levels . timers . group offsets
//	          +-- Broker "b"        ^                     |
//	                                +------- Deliver -----+   when the test moves the clock
//
// Time stands still unless Options.Now moves, and what is due moves only when Deliver is called.
// With Options.Pipes there is no network: tests in virtual time connect by Cluster.Dial.
//
// What a test can make go wrong:
//
//	Broker.Stop, Start    connections end; what was stored is there again afterwards
//	Broker.Expire         the commit log loses its beginning; entries that lay there are never
//	                      delivered, and nothing is said, as by a real broker
//	Broker.Skip           entries of a delay level are passed over, and nothing is said
//	Broker.Truncate       the end of a queue is lost, as when a slave takes over
//	Broker.DropTimers     the wheel forgets its timers
//	Broker.Reboot         the index of keys forgets what was stored
//	Broker.OnRequest      any request: another answer, none, a late one, a cut one
//
// It is as strict as a real broker where that mattered: a single message without a body is an
// error, system topics cannot be sent to, a pull without subscription is refused.
//
// A Cluster is safe for concurrent use. Close waits for all its goroutines.
package fakebroker
