// SPDX-License-Identifier: Apache-2.0

// Package calendar says when a recurring schedule fires: it reads cron expressions and finds the
// next instant in a time zone of the embedded tz database.
//
//	"30 2 * * *", Europe/Berlin          29 March 2026: the clocks go from 02:00 to 03:00
//
//	local   01:30      02:00 ········ 03:00      03:30     02:30 does not exist:
//	instant ──┴──────────┴──────────────┴──────────┴──     fires at 03:00
//
// Invariants:
//
//	Z1  A rule with fixed hours fires at the first instant at which the local clock shows the
//	    wanted time or a later one: a time in a gap at the first valid instant after the gap, a
//	    doubled time once, the first time. Nothing is lost when a whole day is skipped.
//	Z2  A rule for every hour follows elapsed time: it fires whenever the local clock shows a time
//	    that matches, in both passes of a doubled hour, and leaves out what does not exist.
//	Z3  Firings of a rule have increasing instants; the next one depends on nothing but the rule, the
//	    instant to look from and, for @every, the start.
//	Z4  Zones come from the embedded database alone, so a machine's own zone files do not change
//	    what a stored schedule means.
//
// Day of month and day of week are joined as POSIX says: if both are restricted, either suffices.
// Years run to 9999; 29 February is found across 2100.
//
// Concurrency: Zones and Rule are safe for concurrent use.
//
// Failure: a rule that is wrong, or that can never fire, is refused when it is parsed. Next fails
// only by saying that nothing follows before the end of the year 9999.
//
// See also: IANA tz database (RFC 6557, RFC 9636); crontab in POSIX.1-2024.
package calendar
