// SPDX-License-Identifier: Apache-2.0

package tidy

// The limits of size. They keep a function on one screen, a file in one sitting, a package in one
// head.
const (
	maxFunction  = 70   // lines
	maxFile      = 600  // lines
	maxPackage   = 3000 // lines
	maxColumns   = 100  // a tab counts as one
	maxInterface = 6    // methods
	maxRule      = 22   // R1 to R22
)

// tables is what the rules cannot know by themselves.
type tables struct {
	floors     []floor
	owners     []owner
	exceptions []exception
	goroutines []permit // files that may hold go statements
	clocks     []permit // directories that may read the clock
	panics     []panicForm
	registries []permit // files that may name a registry
	main       []string // directories whose doc.go tells the whole story
}

// floor is a package's place in the house. Imports go to lower floors only.
type floor struct {
	dir    string // with all below it, unless a longer one matches
	number int
	reason string
}

// owner says which packages may import a third-party module.
type owner struct {
	path   string // prefix of the import path; the longest match decides
	dirs   []string
	reason string
	tests  bool // tests may import it anywhere
}

// exception allows one larger number; it is exact (H2).
type exception struct {
	rule   string // the rule's name
	object string // as the problem names it
	value  int
	reason string
}

// permit allows something in one file or directory.
type permit struct {
	path   string
	reason string
}

// panicForm is a way to panic that a package may use beside "BUG: ".
type panicForm struct {
	dir, prefix, reason string
}

// house is the tables of this repository.
func house() tables {
	return tables{
		floors: houseFloors(),
		owners: houseOwners(),
		main:   []string{"timewheel", "localstore", "tiered", "scheduler"},
		registries: []permit{
			{"docker-compose.yml", "the default registry no longer has MinIO; a variable chooses another"},
		},
		clocks: []permit{
			{"cmd", "a command lives in real time"},
			{"internal/daemon", "the composition root hands the wall clock to everything"},
			{"internal/sim/cmd", "a command lives in real time: it tells the speed"},
			{"internal/exam/cmd", "a command lives in real time: it tells the speed"},
			{"integration", "tests against real programs wait in real time"},
		},
		panics: []panicForm{
			{"localstore", "FATAL: ", "after a failed sync the process must end (decision 2), " +
				"unless the caller gave Options.Fatal"},
			{"internal/sim", "", "a crash unwinds a call by a panic that the world recovers"},
		},
		goroutines: houseGoroutines(),
		exceptions: houseExceptions(),
	}
}

func houseFloors() []floor { return append(lowerFloors(), upperFloors()...) }

// lowerFloors are those below the shard.
func lowerFloors() []floor {
	return []floor{
		{"delay", 0, "the vocabulary: imported by all, imports nothing"},
		{"api", 0, "the wire contract: generated code, knows nothing of us"},
		{"internal/tidy", 0, "looks at source text only"},
		{"internal/planted", -1, "mistakes for the exam: constants, false outside it, for every package"},
		{"timewheel", 1, "pure and generic"},
		{"tiered/objstore", 1, "the seam to buckets: an interface"},
		{"tiered/codec", 1, "what the formats of the tier share"},
		{"broker", 1, "the seams to brokers: interfaces"},
		{"localstore", 2, "the warm tier: knows messages, not the rest of the house"},
		{"tiered/segment", 2, "a format: bytes in, bytes out"},
		{"tiered/objio", 2, "retries and limits around a bucket"},
		{"tiered/objstore/objstoretest", 2, "the conformance suite of the seam"},
		{"tiered/objstore/probe", 2, "tries a bucket out"},
		{"tiered/objstore/memory", 3, "one bucket"},
		{"tiered/objstore/filesystem", 3, "one bucket"},
		{"tiered/objstore/faulty", 3, "a bucket around another"},
		{"tiered/objstore/s3", 3, "one bucket"},
		{"tiered/objstore/s3/realtest", 4, "opens s3 for the tests of whoever may use it"},
		{"tiered/manifest", 3, "which segments exist: names segments, talks through objio"},
		{"broker/intake", 2, "what the headers of a record ask for"},
		{"broker/brokertest", 2, "the conformance suite of the seam"},
		{"broker/brokertest/realtest", 2, "hands real brokers to the tests that ask"},
		{"broker/kafka", 3, "one kind of target"},
		{"broker/logsink", 3, "one kind of target"},
		{"broker/memory", 3, "one kind of target"},
		{"broker/nats", 3, "one kind of target"},
		{"broker/pull", 3, "one kind of target"},
		{"broker/rocketmq", 3, "one kind of target"},
		{"broker/rocketmq/remoting", 1, "a protocol: bytes and connections, knows no sink"},
		{"broker/rocketmq/queue", 2, "reads a queue: knows no source"},
		{"broker/rocketmq/guardian", 4, "mirrors and judges: sends as the sink does"},
		{"broker/rocketmq/fakebroker", 2, "a broker for tests: speaks the protocol"},
		{"broker/webhook", 3, "one kind of target"},
		{"tiered/cache", 1, "generic"},
		{"tiered/merge", 4, "reads segments in order, through an interface"},
		{"tiered/upkeep", 4, "pure: manifests in, decisions out"},
		{"tiered", 5, "the cold tier: joins formats and buckets"},
	}
}

// upperFloors are the shard, and what stands on it.
func upperFloors() []floor {
	return []floor{
		{"scheduler/calendar", 1, "pure: an expression and an instant in, the next instant out"},
		{"scheduler/calendar/gen", 1, "fetches the tz database that calendar embeds"},
		{"scheduler/recur", 2, "pure: a schedule and an instant in, its firings out"},
		{"scheduler/clock", 1, "pure: two clocks in, one out"},
		{"scheduler/core", 2, "pure and stepped: knows messages and the wheel, no store"},
		{"scheduler/trouble", 1, "what a loop logs of its failures"},
		{"scheduler/landed", 1, "who waits for the bucket"},
		{"scheduler/position", 1, "pure: how far sources were read"},
		{"scheduler/upload", 2, "what waits for a flush: a buffer between goroutines"},
		{"scheduler/lanes", 3, "numbers for targets, as references have them"},
		{"scheduler/find", 3, "looks messages up in the store"},
		{"scheduler/guard", 7, "asks guardians about messages that belong to their brokers"},
		{"scheduler/parcel", 6, "reads the messages of claims: the store, else the tier"},
		{"scheduler/commit", 4, "the only writer of the store; asks the core, knows no shard"},
		{"scheduler/query", 6, "reads the store and the tier, knows no shard"},
		{"scheduler/bulk", 7, "cancels what passes a filter: asks query, goes through commit"},
		{"scheduler/maintain", 6, "when the tier is compacted and collected, knows no shard"},
		{"scheduler/rates", 3, "how fast lanes deliver"},
		{"scheduler/crowd", 3, "how full the seconds of limited targets are"},
		{"scheduler/inbox", 3, "the committer's queue"},
		{"scheduler/ledger", 6, "the shard's side of a sink that delivers exactly once"},
		{"scheduler/intake", 6, "what sources see of a shard, which it does not know"},
		{"scheduler/hydrate", 6, "what comes near and what is far, knows no shard"},
		{"scheduler/cut", 6, "what one flush uploads: reads the store and the buffer"},
		{"scheduler/recovery", 6, "fills the store from the tier, knows no shard"},
		{"scheduler", 8, "the heart: joins the core, the committer and the tier"},
		{"internal/config", 9, "the file and the flags: the packages' options"},
		{"internal/metrics", 9, "counts what the scheduler tells"},
		{"internal/server", 9, "the front end of the scheduler"},
		{"internal/ctl", 9, "the commands: clients of the front end"},
		{"internal/daemon", 10, "the composition root: joins everything"},
		{"internal/sim/disk", 1, "a disk that can lose its power"},
		{"internal/sim/audit", 5, "a bucket that watches what owners do to it"},
		{"internal/sim/swarm", 9, "what a seed means: options and rates"},
		{"internal/sim/trace", 9, "what happened, in words"},
		{"internal/sim/hands", 1, "a wall clock that steps, and a second opinion of it"},
		{"internal/sim/linear", 9, "judges the order of calls about one id"},
		{"internal/sim/model", 10, "what clients were told and receivers have"},
		{"internal/sim/limits", 11, "a second opinion of the limits of targets"},
		{"internal/sim/racing", 11, "clients that race for ids"},
		{"internal/sim/recurring", 11, "makes schedules and judges their firings"},
		{"internal/sim", 12, "the other composition root: the world is simulated"},
		{"internal/sim/cmd", 13, "runs the simulation"},
		{"internal/exam", 10, "which test guards what: plants mistakes and runs the tests"},
		{"internal/exam/cmd", 11, "runs the exam"},
		{"cmd", 11, "parse, call, exit"},
	}
}

func houseOwners() []owner {
	const (
		one = "one library, one importer: replacing it touches one package"
		rpc = "the wire: its generated code, and who speaks it"
	)
	wire := []string{"api", "internal/server", "internal/ctl"}
	return []owner{
		{path: "go.uber.org/zap", reason: "logging is passed in everywhere; its type is in signatures"},
		{path: "github.com/cockroachdb/pebble", dirs: []string{"localstore"}, reason: one},
		{
			path: "github.com/anishathalye/porcupine", dirs: []string{"internal/sim/linear"},
			reason: one,
		},
		{
			path: "github.com/cockroachdb/pebble/v2/vfs",
			dirs: []string{
				"localstore", "internal/sim", "internal/sim/disk", "internal/daemon", "internal/ctl",
			},
			reason: "the seam to the file system: tests bring one in memory, others the real one",
			tests:  true,
		},
		{path: "github.com/minio/minio-go", dirs: []string{"tiered/objstore/s3"}, reason: one},
		{path: "github.com/klauspost/compress", dirs: []string{"tiered/codec"}, reason: one},
		{
			path:   "golang.org/x/sys/unix",
			dirs:   []string{"localstore", "tiered/objstore/filesystem"},
			reason: "file locks and free space: what package syscall lacks",
		},
		{path: "connectrpc.com/connect", dirs: wire, reason: rpc},
		{path: "google.golang.org/protobuf", dirs: wire, reason: rpc},
		{path: "github.com/spf13/cobra", dirs: []string{"internal/ctl"}, reason: one},
		{path: "github.com/spf13/pflag", dirs: []string{"internal/ctl"}, reason: "cobra's flags"},
		{path: "github.com/jedib0t/go-pretty", dirs: []string{"internal/ctl"}, reason: one},
		{path: "github.com/schollz/progressbar", dirs: []string{"internal/ctl"}, reason: one},
		{path: "golang.org/x/term", dirs: []string{"internal/ctl"}, reason: one},
		{path: "go.yaml.in/yaml", dirs: []string{"internal/config"}, tests: true, reason: one},
		{path: "github.com/prometheus/client_golang", dirs: []string{"internal/metrics"}, reason: one},
		{path: "github.com/robfig/cron", dirs: []string{"scheduler/calendar"}, reason: one},
		{path: "github.com/twmb/franz-go", dirs: []string{"broker/kafka"}, tests: true, reason: one},
		{
			path: "github.com/nats-io/nats.go", dirs: []string{"broker/nats"}, reason: one,
			tests: true, // plain clients look at what the daemon did
		},
		{path: "golang.org/x/sync", reason: "the Go project's own; errgroup and singleflight are words"},
	}
}

func houseGoroutines() []permit {
	return []permit{
		{"scheduler/runner.go", "deliveries fly beside the loop, one per batch; Drain waits for them"},
		{"localstore/open.go", "a replay that fails for ever is left to the end of the process"},
		{"internal/daemon/run.go", "a disk that hangs is waited for a second, then the process ends"},
		{"internal/ctl/bench/ingest.go", "parallel turns WaitGroup.Wait into a channel, and waits"},
	}
}

func houseExceptions() []exception { return nil }
