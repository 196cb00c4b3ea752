// SPDX-License-Identifier: Apache-2.0

// Package brokers runs real brokers for tests, as child processes that can be killed, paused and
// started again on the same ports with the same data: Kafka and RocketMQ from their published jars
// (scripts/kafka.sh, scripts/rocketmq.sh), NATS with JetStream from its Go module.
//
//	Park --starts on demand--> Kafka    RocketMQ = name server + broker    NATS
//	  ^                          |                  |                        |
//	  |                          +--------------- Process ------------------+
//	  |                              Start Stop Kill Pause Continue Log
//	  +-- http: GET /kafka, POST /kafka/kill ... for tests in other processes
//
// Tests of this module hold a Park and call it. Tests of the product's packages, which must not
// depend on this module, reach one over HTTP with broker/brokertest/realtest; `with` is the command
// that starts a Park around them.
//
// # Invariants
//
//	P1  A broker is started once for a Park, however many ask, and ends with it; on Linux also when
//	    the process that holds the Park is killed.
//	P2  What needs a part that is not on this machine is an error that is ErrMissing, so that a
//	    test can be skipped for it, and for nothing else.
//
// A Park and a Process are safe for concurrent use.
package brokers
