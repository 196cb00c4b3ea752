// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/format/headers.md")

const documentHead = `# Headers of records that a broker holds

What a record of Kafka, NATS or RocketMQ (there: a user property) asks for stands in its headers. This
page is made from the table in broker/intake that reads them: ` +
	"`go test ./broker/intake -update`" + `.

A header that is not understood, given twice, contradicted by another or out of range sends the record
to the source's reject topic, with ` + "`cicada-error`" + ` naming the header; so does a missing target, and a
` + "`cicada-`" + ` name that is not below. Names that begin with ` + "`cicada-`" + ` are read in any case, those of
others as they are written. Headers listed here are not delivered; all others are, at most 64, 64 KiB
together, without control characters and each name once.

Exactly one of an instant, a delay and a schedule is needed. What is in the past is due at once. The body
is the record's value.

**Delays** count from the time that the broker has with the record, whenever that is read: a daemon that
was down, and one that reads the topic again after the loss of its disk, finds the same due. On Kafka that
is the record's timestamp: the producer's clock with ` + "`message.timestamp.type=CreateTime`" + ` (Kafka's default; use
` + "`LogAppendTime`" + ` where producers' clocks are not to be trusted), on NATS when the stream stored it, on RocketMQ
the store timestamp. One of the future, or none, counts as the time of reading. A schedule's ` + "`@every`" + ` begins when
it is read.

**Identity.** The id is ` + "`cicada-id`" + `, or with ` + "`id_from: key`" + ` the record's key; without one it is where
the record lies: broker, topic, partition, offset. A record that is read again finds its message.
Other content under a known id goes to the reject topic, unless ` + "`cicada-replace: true`" + `.

**Cancel.** On Kafka a null value with an id withdraws it; everywhere ` + "`cicada-cancel: true`" + ` with an id
does. A cancel that comes too late changes nothing.

On NATS all other headers that begin with ` + "`Nats-`" + ` are left out: they were for the server. A
` + "`Nats-Schedule-…`" + ` that is not below is refused.
`

// A table that somebody extends without the documentation would leave users guessing.
func TestDocument(t *testing.T) {
	const path = "../../docs/format/headers.md"
	var b strings.Builder
	b.WriteString(documentHead)
	table := func(title string, entries []entry) {
		fmt.Fprintf(&b, "\n## %s\n\n| header | value | meaning |\n|---|---|---|\n", title)
		for _, e := range entries {
			meaning := e.says
			if i := e.field; strings.Index(e.name, prefix) != 0 {
				meaning = "as `" + nameOf(i) + "` (" + e.says + ")"
			}
			if e.form == formNATS {
				meaning = "as `cicada-deliver-at` or `cicada-schedule` (" + e.says + ")"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", e.name, formTexts[e.form], meaning)
		}
	}
	table("Every kind of source", canonical[:])
	table("Kafka", aliases(Kafka))
	table("NATS", aliases(NATS))
	table("RocketMQ", aliases(RocketMQ))
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	}
	have, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, b.String(), string(have), "run: go test ./broker/intake -update")
}

// nameOf is our header for a field.
func nameOf(f field) string {
	for _, e := range canonical {
		if e.field == f {
			return e.name
		}
	}
	panic("BUG: a field without a header")
}
