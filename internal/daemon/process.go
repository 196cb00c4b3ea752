// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/cicadamq/cicada/internal/config"
)

// NewLogger logs to w. terminal says that a person reads it: format auto is then console.
func NewLogger(log config.Log, w io.Writer, terminal bool) *zap.Logger {
	level, err := zapcore.ParseLevel(log.Level)
	if err != nil {
		level = zapcore.InfoLevel // the configuration allows only levels that exist
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	enc.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(enc)
	if log.Format == "console" || log.Format == "auto" && terminal {
		encoder = zapcore.NewConsoleEncoder(enc)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), level))
}

// smallMachine is the number of cores up to which twice as many threads run Go code: on two cores
// that cut the lateness under full intake to a quarter at the same throughput, because a core that
// is busy with intake no longer delays the loop that fires.
const smallMachine = 4

// Tune sets the limits of the process that the environment did not set: GOMAXPROCS, GOMEMLIMIT. The
// memtables and the block cache live in the Go heap; without a limit the collector would let it
// grow to twice their size.
func Tune(cfg *config.Config, env func(string) (string, bool)) {
	if _, set := env("GOMAXPROCS"); !set {
		if n := runtime.NumCPU(); n <= smallMachine {
			runtime.GOMAXPROCS(2 * n)
		}
	}
	if _, set := env("GOMEMLIMIT"); !set && cfg.MemoryLimit > 0 {
		debug.SetMemoryLimit(cfg.MemoryLimit)
	}
}

// sameDisk reports whether two paths are on one file system. When it cannot tell it says yes: the
// warning is cheaper than the loss.
func sameDisk(a, b string) bool {
	device := func(path string) (uint64, bool) {
		info, err := os.Stat(path)
		if err != nil {
			return 0, false
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return 0, false
		}
		return uint64(st.Dev), true //nolint:unconvert // its type is another on other systems
	}
	da, oka := device(a)
	db, okb := device(b)
	return !oka || !okb || da == db
}
