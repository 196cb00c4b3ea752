// SPDX-License-Identifier: Apache-2.0

// Package daemon is the composition root: it turns a configuration into components, runs them, and
// ends them in order.
//
//	Config -> listener, store, bucket -> tier -> shard -> server
//
//	Run:   [ shard ] [ sources ] [ http ] [ drain on SIGTERM ] [ fatal errors ]    one group, one end
//	drain: refuse sends, answer polls -> end sources -> take acks -> finish what is with sinks ->
//	       sync, last flush -> close connections -> close server, shard, tier, bucket, store, brokers
//
// # Invariants
//
//	M1  The listener is bound before the shard is taken: a port in use never costs another daemon
//	    its epoch.
//	M2  After a fatal error of the store nothing is closed or flushed, and nobody is waited for
//	    longer than a second: the process ends, and the next start recovers what was acknowledged.
//	M3  A drain takes no longer than shutdown_timeout plus one second.
//	M4  A directory that is not this cluster's latest is set aside, never written (rule R10).
//	M5  A remote store that ignores conditions is found out and refused before anything of the
//	    cluster is written there: two owners would not notice each other (rule R11).
//	M6  A reload takes everything or nothing: a broken file leaves in use what was, and is told once.
//
// # Concurrency
//
// A Daemon is opened, run once and gone; only Addr may be called beside Run.
//
// # Failure
//
// A crash at any line is a crash of the store: see localstore. An error of Open or Run names the
// object and what to do about it.
//
// See also docs/operations.md.
package daemon
