// SPDX-License-Identifier: Apache-2.0

package core

import "iter"

// Sparse is an array of which most may be empty, for numbers that only go up: a page is given back
// when its last element has gone. The zero value is empty. It is not safe for concurrent use.
type Sparse[T any] struct{ pages []*page[T] }

const pageSize = 256

type page[T any] struct {
	items [pageSize]*T
	held  int
}

// Get is the element with the number no, or nil.
func (s *Sparse[T]) Get(no uint32) *T {
	if at := int(no / pageSize); at < len(s.pages) && s.pages[at] != nil {
		return s.pages[at].items[no%pageSize]
	}
	return nil
}

// Put stores v, which is not nil, under the number no, where nothing is.
func (s *Sparse[T]) Put(no uint32, v *T) {
	at := int(no / pageSize)
	for at >= len(s.pages) {
		s.pages = append(s.pages, nil)
	}
	if s.pages[at] == nil {
		s.pages[at] = new(page[T])
	}
	s.pages[at].items[no%pageSize] = v
	s.pages[at].held++
}

// Delete removes the element with the number no, which is there.
func (s *Sparse[T]) Delete(no uint32) {
	p := s.pages[no/pageSize]
	p.items[no%pageSize] = nil
	if p.held--; p.held == 0 {
		s.pages[no/pageSize] = nil
	}
}

// End is above the number of every element.
func (s *Sparse[T]) End() uint32 { return uint32(len(s.pages)) * pageSize }

// From gives the elements with numbers of [lower, upper), in order.
func (s *Sparse[T]) From(lower, upper uint32) iter.Seq2[uint32, *T] {
	return func(yield func(uint32, *T) bool) {
		for no := lower; no < min(upper, s.End()); {
			p := s.pages[no/pageSize]
			if p == nil {
				no = (no/pageSize + 1) * pageSize
				continue
			}
			if v := p.items[no%pageSize]; v != nil && !yield(no, v) {
				return
			}
			no++
		}
	}
}
