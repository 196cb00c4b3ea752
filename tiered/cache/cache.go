// SPDX-License-Identifier: Apache-2.0

// Package cache keeps values that are dear to load: those used last, up to a number of bytes. It
// loads a missing one once, however many ask for it at the same time.
package cache

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// Cache keeps the values used last, up to a number of bytes, and loads a missing one once however
// many callers ask for it. Values are shared and must not be changed.
type Cache[K comparable, V any] struct {
	mu      sync.Mutex
	most    int64
	used    int64
	order   *list.List // of *entry[K, V], the last used in front
	entries map[K]*list.Element
	flights map[K]*flight[V]
}

type entry[K comparable, V any] struct {
	key   K
	value V
	size  int64
}

// flight is a load under way. value and err are written before done is closed.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// New is an empty cache of about most bytes. One value may be larger.
func New[K comparable, V any](most int64) *Cache[K, V] {
	return &Cache[K, V]{
		most: most, order: list.New(), entries: make(map[K]*list.Element),
		flights: make(map[K]*flight[V]),
	}
}

// Get gives the value of key, loading it when it is missing. size tells the bytes of a value.
func (c *Cache[K, V]) Get(
	ctx context.Context, key K, load func(context.Context) (V, error), size func(V) int64,
) (V, error) {
	for {
		v, f, leader := c.find(key)
		if f == nil {
			return v, nil
		}
		if leader {
			f.value, f.err = load(ctx)
			c.land(key, f, size)
			return f.value, f.err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			var none V
			return none, context.Cause(ctx)
		}
		// A leader that gave up because of its own ctx says nothing about the value.
		if !errors.Is(f.err, context.Canceled) && !errors.Is(f.err, context.DeadlineExceeded) {
			return f.value, f.err
		}
	}
}

// find gives the value, or the flight that will bring it and whether the caller must fly it.
func (c *Cache[K, V]) find(key K) (v V, f *flight[V], leader bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok {
		c.order.MoveToFront(e)
		return e.Value.(*entry[K, V]).value, nil, false
	}
	if f, ok := c.flights[key]; ok {
		return v, f, false
	}
	f = &flight[V]{done: make(chan struct{})}
	c.flights[key] = f
	return v, f, true
}

func (c *Cache[K, V]) land(key K, f *flight[V], size func(V) int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights, key)
	if f.err == nil {
		c.insert(key, f.value, size(f.value))
	}
	close(f.done)
}

// Put stores a value that need not be loaded.
func (c *Cache[K, V]) Put(key K, v V, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; !ok {
		c.insert(key, v, size)
	}
}

func (c *Cache[K, V]) insert(key K, v V, size int64) {
	c.entries[key] = c.order.PushFront(&entry[K, V]{key: key, value: v, size: size})
	c.used += size
	for c.used > c.most && c.order.Len() > 1 {
		oldest := c.order.Back()
		e := c.order.Remove(oldest).(*entry[K, V])
		delete(c.entries, e.key)
		c.used -= e.size
	}
}
