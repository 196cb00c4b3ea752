// SPDX-License-Identifier: Apache-2.0

package client

import "encoding/base64"

// Receipt is the reply to one accepted message, or Err.
type Receipt struct {
	ID         string `json:"id,omitempty"`
	Due        string `json:"due,omitempty"`
	DueMS      int64  `json:"due_ms,omitempty"`
	Durability string `json:"durability,omitempty"`
	Duplicate  bool   `json:"duplicate"`
	Generation uint32 `json:"generation,omitempty"`
	State      string `json:"state,omitempty"`
	Crowded    bool   `json:"crowded,omitempty"` // its second is fuller than the target's limit
	Suggested  string `json:"suggested_at,omitempty"`
	SuggestMS  int64  `json:"suggested_at_ms,omitempty"`
	Err        *Error `json:"error,omitempty"`
}

// Message is what the daemon knows of one message.
type Message struct {
	ID         string            `json:"id"`
	State      string            `json:"state"`
	Due        string            `json:"due,omitempty"`
	DueMS      int64             `json:"due_ms,omitempty"`
	Attempts   uint32            `json:"attempts"`
	Tier       string            `json:"tier,omitempty"`
	Target     string            `json:"target,omitempty"`
	Key        string            `json:"key,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Size       int64             `json:"size"`
	Generation uint32            `json:"generation,omitempty"`
	Body       *string           `json:"body,omitempty"`
	BodyBase64 *string           `json:"body_base64,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	LastError  string            `json:"last_error,omitempty"`
	DiedAt     string            `json:"died_at,omitempty"`
	Schedule   *Schedule         `json:"schedule,omitempty"`
	Guard      *Guard            `json:"guard,omitempty"`
}

// Guard says that another broker is to deliver the message, and where its copy waits.
type Guard struct {
	Lane  string `json:"lane"`
	Entry string `json:"entry"`
}

// Schedule is what a schedule was told and what it has done.
type Schedule struct {
	Expression   string   `json:"expression"`
	TimeZone     string   `json:"time_zone"`
	Misfire      string   `json:"misfire"`
	MisfireLimit uint32   `json:"misfire_limit,omitempty"`
	Until        string   `json:"until,omitempty"`
	Count        uint64   `json:"count,omitempty"`
	Jitter       string   `json:"jitter,omitempty"`
	Fired        uint64   `json:"fired"`
	Missed       uint64   `json:"missed"`
	Last         string   `json:"last,omitempty"`
	LastDueMS    int64    `json:"last_due_ms,omitempty"`
	Paused       bool     `json:"paused"`
	Next         []Firing `json:"next"`
}

// Firing is one firing to come.
type Firing struct {
	Due   string `json:"due"`
	DueMS int64  `json:"due_ms"`
	Local string `json:"local"`
	Note  string `json:"note,omitempty"`
}

// Page is a page of messages.
type Page struct {
	Messages      []Message `json:"messages"`
	NextPageToken string    `json:"next_page_token,omitempty"`
}

// Leased is one message handed to a puller.
type Leased struct {
	ID         string            `json:"id"`
	Receipt    string            `json:"receipt"`
	Attempt    uint32            `json:"attempt"`
	Due        string            `json:"due"`
	DueMS      int64             `json:"due_ms"`
	Key        string            `json:"key,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Body       *string           `json:"body,omitempty"`
	BodyBase64 *string           `json:"body_base64,omitempty"`
}

// Text is the body for people: the text, or the base64 of bytes that are no text.
func (m *Leased) Text() string {
	if m.Body != nil {
		return *m.Body
	}
	if m.BodyBase64 != nil {
		return *m.BodyBase64
	}
	return ""
}

// Bytes is the body of m.
func (m *Message) Bytes() ([]byte, error) {
	switch {
	case m.Body != nil:
		return []byte(*m.Body), nil
	case m.BodyBase64 != nil:
		return base64.StdEncoding.DecodeString(*m.BodyBase64)
	default:
		return nil, nil
	}
}

// Verdict is the answer to a change of one message.
type Verdict struct {
	ID         string `json:"id"`
	Result     string `json:"result"`
	Due        string `json:"due,omitempty"`
	DueMS      int64  `json:"due_ms,omitempty"`
	State      string `json:"state,omitempty"`
	Durability string `json:"durability,omitempty"`
}

// Settled is the answer to one receipt.
type Settled struct {
	Receipt string `json:"receipt"`
	Result  string `json:"result"`
}

// Bucket is one bar of the histogram of the future.
type Bucket struct {
	From   string `json:"from"`
	FromMS int64  `json:"from_ms"`
	Count  int64  `json:"count"`
	Bytes  int64  `json:"bytes"`
	Hot    int64  `json:"hot"`
	Warm   int64  `json:"warm"`
	Cold   int64  `json:"cold"`
	// Recurring are those of Count that do not exist yet: firings to come of schedules.
	Recurring int64 `json:"recurring"`
}

// Target is one lane.
type Target struct {
	Target    string  `json:"target"`
	InFlight  int64   `json:"in_flight"`
	Backlog   int64   `json:"backlog"`
	Rate      float64 `json:"rate"`
	LastError string  `json:"last_error,omitempty"`
	Paused    bool    `json:"paused"`
	Open      bool    `json:"open"`
	Limit     *Limit  `json:"limit,omitempty"`
}

// Books are the sums of S10.
type Books struct {
	Accepted     int64 `json:"accepted"`
	Pending      int64 `json:"pending"`
	Delivered    int64 `json:"delivered"`
	Cancelled    int64 `json:"cancelled"`
	Expired      int64 `json:"expired"`
	Dead         int64 `json:"dead"`
	LostWithDisk int64 `json:"lost_with_disk"`
	Cancelling   int64 `json:"cancelling"` // of Pending, at most: cancelled and not counted yet
	Suppressed   int64 `json:"suppressed"` // guarded, and delivered by their own broker
}

// Missing is how many accepted messages are in no other column: 0 when the books balance (S10).
func (b *Books) Missing() int64 {
	return b.Accepted - b.Pending - b.Delivered - b.Cancelled - b.Expired - b.Dead - b.Suppressed -
		b.LostWithDisk
}

// Level counts one storage level.
type Level struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
}
