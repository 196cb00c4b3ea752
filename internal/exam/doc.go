// SPDX-License-Identifier: Apache-2.0

// Package exam knows which test guards which guarantee, and proves it: it plants a known mistake in
// the product, and what guards the rule that is broken must fail.
//
//	rules R, promises S, causes D          docs/guarantees.md
//	          |                                    ^
//	          v                                    |
//	mistakes (internal/planted) --guard--> exam --findings--> testdata/exam.json
//	                                        |
//	                          a profile of internal/sim, or a test,
//	                          built with the tag exam, once with the mistake and once without
//
// Three tables in code say what there is: Rules, Mistakes, and Mutations, which are mistakes that
// were made by hand. Tests check that they are complete and that the document is as they say.
//
// # Concurrency
//
// The tables are values. A Run is used by one goroutine.
//
// # Failure
//
// A mistake that is not found, or a guard that fails without it, ends the exam with an error.
package exam
