// SPDX-License-Identifier: Apache-2.0

// Package client is one client of the torture: it calls a daemon that dies, and writes down what it
// asks before it asks, and what was answered.
//
//	stdin open: send, cancel, move, fire, pull, ack, nack, extend, forget ...   --> log
//	stdin closed: end
//
// What it does is drawn from a seed. Where the daemon is it reads from a file before each call,
// because the supervisor may start another one.
package client
