// SPDX-License-Identifier: Apache-2.0

// Package pb translates between the messages of cicada.proto and the words of the scheduler.
//
//	cicadav1.Message -> Item -> wire.Rules -> delay.Draft -> Shard
//	cicadav1.Info, Receipt, … <---------------------------- Shard
//
// Every field is checked like in the JSON API: what both have in common is in package wire.
//
// The functions are pure, and keep nothing that could be lost.
package pb
