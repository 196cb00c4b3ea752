// SPDX-License-Identifier: Apache-2.0

// Command torture kills, stops, starves and misleads real daemons while clients work, and checks
// afterwards what was promised.
//
//	go run ./torture -for 60s -seed 7 -store versity -faults kill,stop,bucket
//
//	torture --+-- daemon, sometimes two
//	          +-- client, client, client ...   this program, started again
//	          +-- gateway                      likewise: an S3 store
//
// A long run is cut into rounds, each with a new directory and a seed of its own, so that memory is
// bounded and a failure can be repeated alone.
//
// One line of JSON on stdout is the result of each round; stderr says what happens. The exit status
// is 1 when a promise was broken, and the directory of the round is kept.
//
// # Invariants
//
//	X1  The ordinary program has no clock that can be stepped: only a build with the tag torture has.
//	X2  Every rule of the checker finds a history that breaks it.
//
// See also docs/testing.md.
package main
