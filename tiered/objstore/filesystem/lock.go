// SPDX-License-Identifier: Apache-2.0

package filesystem

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stripes = 64
	// The pauses between attempts at a lock that another process holds: a writer holds it for one
	// rename.
	firstPause = 200 * time.Microsecond
	lastPause  = 20 * time.Millisecond
)

// locks excludes writers of one key from each other (F2): those of this process by a channel, which
// is fair and costs nothing, those of others by a lock on a file.
type locks struct {
	dir   string
	local [stripes]chan struct{}
}

func (l *locks) init(dir string) {
	l.dir = dir
	for i := range l.local {
		l.local[i] = make(chan struct{}, 1)
	}
}

// lock waits for the lock of key; unlock must be called once.
func (l *locks) lock(ctx context.Context, key string) (unlock func(), err error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // never fails
	stripe := h.Sum32() % stripes
	select {
	case l.local[stripe] <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for lock: %w", context.Cause(ctx))
	}
	f, err := l.flock(ctx, stripe)
	if err != nil {
		<-l.local[stripe]
		return nil, fmt.Errorf("wait for lock: %w", err)
	}
	return func() {
		_ = f.Close() // releases the lock
		<-l.local[stripe]
	}, nil
}

// flock locks the stripe's file. It polls, because a blocking flock cannot be called off.
func (l *locks) flock(ctx context.Context, stripe uint32) (*os.File, error) {
	path := filepath.Join(l.dir, fmt.Sprintf("%02x", stripe))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, refuse(err)
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("flock %s: %w", path, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			_ = f.Close()
			return nil, context.Cause(ctx)
		}
	}
}
