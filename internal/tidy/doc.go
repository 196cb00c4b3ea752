// SPDX-License-Identifier: Apache-2.0

// Package tidy holds the house rules as checks over the source tree, run by its tests.
//
//	source tree --Load--> Repo --each Rule--> Problems (file, line, what to do)
//
// A rule is a function and the reason for it; what a rule cannot know (who may import what, which
// exceptions exist) is in the tables of tables.go, each row with its reason. The checks parse, they
// do not compile: a tree that does not build can still be checked.
//
// # Invariants
//
//	H1  Every rule is tried on a planted violation, so no check can pass by checking nothing.
//	H2  An exception is exact: it fails when it is exceeded and when it is no longer needed, so the
//	    list of exceptions can only shrink.
//	H3  Tests, generated code and the module integration/ are free of the limits of size.
//
// # Concurrency
//
// A Repo is read-only after Load.
//
// See also CONTRIBUTING.md.
package tidy
