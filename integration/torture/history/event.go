// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// What a client does, a receiver sees and a supervisor makes happen.
const (
	Send    = "send"
	Cancel  = "cancel"
	Stop    = "stop" // cancel that also ends what was attempted
	Patch   = "patch"
	Fire    = "fire"
	Get     = "get"
	Retry   = "retry" // from the dead letters
	Pull    = "pull"
	Ack     = "ack"
	Nack    = "nack"
	Extend  = "extend"
	Attempt = "attempt" // of a receiver

	Launch   = "launch" // a process begins
	Ready    = "ready"
	Kill     = "kill"
	Freeze   = "freeze" // SIGSTOP
	Thaw     = "thaw"
	Term     = "term"
	Exit     = "exit"
	Lost     = "lost"     // the data directory is gone
	Takeover = "takeover" // another daemon took the shard
	Step     = "step"     // of a clock
	Cut      = "cut"      // of the bucket
	Heal     = "heal"
	Full     = "full" // the disk
	Room     = "room"
	Failed   = "failed" // the supervisor saw what must not be
)

// Answers beside the words of the API.
const (
	OK      = "OK"
	Unknown = "UNKNOWN" // no answer, or one that leaves it open
	Refused = "REFUSED" // answered: nothing was done
)

// Event is one line of a log.
type Event struct {
	At     int64  `json:"at"` // nanoseconds since the Unix epoch, by the machine's clock
	Proc   string `json:"proc"`
	Op     int64  `json:"op,omitempty"`  // joins a call and its answer within one process
	End    bool   `json:"end,omitempty"` // it is the answer
	What   string `json:"what"`
	Daemon string `json:"daemon,omitempty"` // that was asked

	ID      string `json:"id,omitempty"`
	Target  string `json:"target,omitempty"`
	Body    string `json:"body,omitempty"`
	Due     int64  `json:"due,omitempty"`   // asked for, answered or delivered with; ms
	Delay   int64  `json:"delay,omitempty"` // asked for instead; ms
	TTL     int64  `json:"ttl,omitempty"`   // ms
	Max     int64  `json:"max,omitempty"`   // attempts; of a pull: messages
	Replace bool   `json:"replace,omitempty"`
	Tier    bool   `json:"tier,omitempty"` // asked for, or answered

	Receipt string `json:"receipt,omitempty"`
	Try     int64  `json:"try,omitempty"`   // number of the attempt
	Lease   int64  `json:"lease,omitempty"` // ms
	Fired   int64  `json:"fired,omitempty"` // by the daemon; ms

	Answer    string  `json:"answer,omitempty"`
	Duplicate bool    `json:"duplicate,omitempty"`
	Gen       int64   `json:"gen,omitempty"`
	State     string  `json:"state,omitempty"`
	Got       []Given `json:"got,omitempty"` // by a pull

	Wall int64  `json:"wall,omitempty"` // ns by which a clock is ahead now
	Boot int64  `json:"boot,omitempty"`
	Note string `json:"note,omitempty"`
}

// Given is one message that a pull brought.
type Given struct {
	ID      string `json:"id"`
	Receipt string `json:"receipt"`
	Try     int64  `json:"try"`
	Due     int64  `json:"due"`
	Fired   int64  `json:"fired,omitempty"` // when the daemon says that it began; ms
	Body    string `json:"body"`
}

// String is a line for people.
func (e Event) String() string {
	line, err := json.Marshal(e)
	if err != nil {
		return err.Error()
	}
	return time.Unix(0, e.At).UTC().Format("15:04:05.000000 ") + string(line)
}

// Log is one process's log. It is safe for concurrent use.
type Log struct {
	proc string
	mu   sync.Mutex
	file *os.File
	ops  int64
}

// Create begins a log in dir, named after the process.
func Create(dir, proc string) (*Log, error) {
	file, err := os.OpenFile(filepath.Join(dir, proc+".log"),
		os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	return &Log{proc: proc, file: file}, nil
}

// Op numbers the next call.
func (l *Log) Op() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops++
	return l.ops
}

// Write writes events with the instant of now, which it returns. They are with the kernel when it
// returns: the death of this process does not take them back.
func (l *Log) Write(events ...Event) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now().UnixNano()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for _, e := range events {
		if e.At == 0 {
			e.At = now
		}
		e.Proc = l.proc
		if err := enc.Encode(e); err != nil {
			return now, err
		}
	}
	_, err := l.file.Write(out.Bytes())
	return now, err
}

// Close ends the log.
func (l *Log) Close() error { return l.file.Close() }

// Read reads every log of a directory, in the order of time. The last line of a process that was
// killed may be half there: it is left out.
func Read(dir string) ([]Event, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return nil, err
	}
	var all []Event
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for n := 1; len(text) > 0; n++ {
			line, rest, whole := bytes.Cut(text, []byte("\n"))
			if !whole {
				break
			}
			text = rest
			var e Event
			if err := json.Unmarshal(line, &e); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", name, n, err)
			}
			all = append(all, e)
		}
	}
	Sort(all)
	return all, nil
}

// Sort orders events by time; of one instant calls come first.
func Sort(events []Event) {
	slices.SortStableFunc(events, func(a, b Event) int {
		switch {
		case a.At != b.At:
			return int(min(max(a.At-b.At, -1), 1))
		case a.End != b.End && !a.End:
			return -1
		case a.End != b.End:
			return 1
		}
		return 0
	})
}
