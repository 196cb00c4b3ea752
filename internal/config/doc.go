// SPDX-License-Identifier: Apache-2.0

// Package config reads the daemon's configuration: one tree of settings from four sources.
//
//	--flag   >   CICADA_ENV   >   YAML file   >   default
//	    \            |               |            /
//	     +-----------+---- table ----+-----------+        one row per setting: key, flag, env,
//	                         |                            default, help, reader, printer
//	                      Config  -->  the packages' Options
//
// Everything that names a setting is made from that one table: flags, environment variables, the
// keys of the file, `cicada config print`, the table in docs/operations.md and the texts of
// mistakes.
//
// # Invariants
//
//	G1  Nothing is ignored and nothing is clamped: an unknown key, a duplicate, a wrong unit and a
//	    value out of range are mistakes, also where a stronger source overrides the value.
//	G2  A mistake names its place: file and line, variable or flag; the key; and what would be
//	    right. All mistakes are reported, not the first.
//	G3  A secret is never printed: String, GoString, MarshalYAML and %v of Secret give stars.
//	G4  What Print writes, Load reads back to the same Config, secrets apart.
//
// A Config is plain data: read it from as many goroutines as you like once Load has returned.
// Nothing here writes to disk; a crash at any line leaves nothing behind.
//
// See also docs/operations.md.
package config
