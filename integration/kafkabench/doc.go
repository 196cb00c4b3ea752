// SPDX-License-Identifier: Apache-2.0

// Command kafkabench measures Cicada beside a real Kafka on this machine, and prints one table. What
// it is compared with is measured in the same run, in turn with it: a plain franz-go producer and
// consumer with their default settings, and batches over the API.
//
//	make bench-kafka                                 all figures, about four minutes
//	go run ./kafkabench -only burst,steady -repeat 1
//
//	plain producer --requests--> Kafka --> cicada serve --when due--> Kafka --> plain consumer
//
// Every message says in its value which one it is and when it is due, so that the consumer finds
// what is early, missing or there twice: then there is no table, and the exit status is 1.
//
// # Invariants
//
//	Y1  A rate is what the consumer has seen: from the due of all messages, or from the first call
//	    of the plain producer, to the arrival of the last one.
//	Y2  Of several repetitions the median counts. Rivals take turns, so that a machine that slows
//	    down slows both.
//	Y3  The daemon is the real program with default settings but for the two brokers and no bucket;
//	    the broker is as scripts/kafka.sh starts it.
//
// See also docs/testing.md.
package main
