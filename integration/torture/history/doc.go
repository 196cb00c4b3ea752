// SPDX-License-Identifier: Apache-2.0

// Package history judges what clients, receivers and a supervisor wrote down about a daemon that
// was troubled: each writes events to a log of its own, and Check reads them all together.
//
//	client 1   call, answer, call, answer ...  --+
//	client 2   call, answer, call ...            +--> Check --> counts, incidents, violations
//	receivers  attempt, attempt ...              |
//	supervisor kill, start, step, lost ...     --+
//
// It imports no package of the product: what is promised is written down here a second time.
//
// # Rules
//
//	early      an attempt began before its due, by the clock that the daemon was given (S1, R21)
//	order      the calls and attempts of one id are the history of no single message (S2 to S5, S7);
//	           decided by porcupine, with unknown outcomes and crashes
//	cancelled  an attempt came after CANCELLED, whatever happened (S5)
//	lease      a message was leased to a second consumer while the first one had it (S7)
//	repeated   a receiver that said yes was asked again without an incident (S6)
//	bound      an incident repeated more than what was in flight and 1,000 (S6)
//	drained    a SIGTERM repeated anything, or ended in a wrong way (S6)
//	strange    an attempt of a message that nobody sent, or with another body (S2)
//	lost       an accepted message was not finished in the end (S2)
//	books      the books do not balance, or not with what was sent (S10)
//	ended      the daemon ended by itself, or a tool found damage afterwards
package history
