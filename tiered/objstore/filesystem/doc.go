// SPDX-License-Identifier: Apache-2.0

// Package filesystem is a bucket in a directory: each object is a file whose path is its key.
//
//	<dir>/v1/...            the objects
//	<dir>/.tmp/<random>     objects being written
//	<dir>/.lock/<00..3f>    one lock file for each 64th of the keys
//
// # Invariants
//
//	F1  A file under an object's path is complete and synced: it is written under .tmp, synced,
//	    renamed, and its directory synced before Put returns.
//	F2  Whoever changes a key holds its lock, in this process and against all others (flock), from
//	    the check of the condition to the rename.
//	F3  Nothing outside the directory is ever touched: keys are checked (objstore.CheckKey).
//	F4  A directory that is gone, because it was moved or is mounted no longer, is no empty bucket:
//	    every call fails without saying what exists, and it is not made again.
//
// The tag of an object is a hash of its content; List leaves it empty, because it would have to
// read every object.
//
// # Concurrency
//
// A Bucket is safe for concurrent use, also by several processes on one host. On a network file
// system conditions hold as far as its flock does.
//
// # Failure
//
// A crash leaves at most files in .tmp, which the next Open removes when they are an hour old. An
// error after the rename (the sync of the directory) means: outcome unknown.
package filesystem
