// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"net/http"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/scheduler"
)

// send accepts one message, a list, or a stream of lines.
func (s *Server) send(c *call) error {
	if c.isStream() {
		return s.stream(c)
	}
	body, err := c.body(maxRequestBytes)
	if err != nil {
		s.rejected(err)
		return err
	}
	m := c.memory()
	if err := m.dec.Messages(body, c.shard.Now(), &m.batch); err != nil {
		s.rejected(err)
		return err
	}
	if err := s.accept(c.lasting(), c.shard, m); err != nil {
		return err
	}
	out := m.out[:0]
	if m.batch.Single {
		if err := s.singleError(m); err != nil {
			return err
		}
		c.reply(wire.AppendReceipt(out, &m.receipts[0]))
		return nil
	}
	out = append(out, `{"results":[`...)
	out = s.appendResults(out, m, ',')
	c.reply(append(out, `]}`...))
	return nil
}

func (s *Server) singleError(m *work) error {
	if err := m.batch.Errs[0]; err != nil {
		return err
	}
	return m.receipts[0].Err
}

// accept hands the good drafts of the batch to the shard and counts the others.
func (s *Server) accept(ctx context.Context, shard access.Shard, m *work) error {
	if s.prepare(m); len(m.receipts) == 0 {
		return nil
	}
	return shard.Accept(ctx, m.batch.Drafts, m.receipts)
}

// prepare counts the refused messages of the batch and makes room for the receipts of the others.
func (s *Server) prepare(m *work) {
	for _, err := range m.batch.Errs {
		if err != nil {
			s.rejected(err)
		}
	}
	n := len(m.batch.Drafts)
	m.receipts = slices.Grow(m.receipts[:0], n)[:n]
	clear(m.receipts)
}

func (s *Server) rejected(err error) { s.opts.Rejected(source, kindOf(err).code.String(), 1) }

// appendResults appends one result per message of the batch, in order: its receipt or its error.
// between separates them; a newline also ends the last.
func (s *Server) appendResults(out []byte, m *work, between byte) []byte {
	receipts := m.receipts
	for i, err := range m.batch.Errs {
		if i > 0 && between == ',' {
			out = append(out, ',')
		}
		if err == nil {
			if err = receipts[0].Err; err == nil {
				out = wire.AppendReceipt(out, &receipts[0])
			}
			receipts = receipts[1:]
		}
		if err != nil {
			out = s.appendItemError(out, err)
		}
		if between == '\n' {
			out = append(out, '\n')
		}
	}
	return out
}

func (s *Server) appendItemError(out []byte, err error) []byte {
	out = append(out, `{"error":`...)
	out = wire.AppendFault(out, s.faultOf(err).wire())
	return append(out, '}')
}

const mostIDs = wire.MaxBatch

func (s *Server) reserve(c *call) error {
	n, err := c.number("count", mostIDs, 1)
	if err != nil {
		return err
	}
	if err := c.nothing(); err != nil {
		return err
	}
	ids, err := c.shard.Reserve(c.Context(), n)
	if err != nil {
		return err
	}
	out := append(c.memory().out[:0], `{"ids":[`...)
	for i, id := range ids {
		if i > 0 {
			out = append(out, ',')
		}
		out = wire.AppendString(out, string(id))
	}
	c.reply(append(out, `]}`...))
	return nil
}

// nothing refuses a body where none belongs.
func (c *call) nothing() error {
	body, err := c.body(maxSmallBytes)
	if err != nil {
		return err
	}
	return wire.DecodeNothing(body)
}

func (s *Server) get(c *call) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	body, err := c.flag("body")
	if err != nil {
		return err
	}
	info, err := c.shard.Get(c.Context(), id, body)
	if err != nil {
		return err
	}
	c.reply(wire.AppendInfo(c.memory().out[:0], &info, wire.Show{
		Body: body, Dead: info.State == delay.Dead,
		Next: s.plans.Next(&info, c.shard.Now(), wire.ShownFirings),
	}))
	return nil
}

func (s *Server) list(c *call) error {
	return s.page(c, c.shard.List, false)
}

type pager func(ctx context.Context, f scheduler.Filter, limit int, token string) (
	[]scheduler.Info, string, error)

// page answers with one page of what list gives.
func (s *Server) page(c *call, list pager, dead bool) error {
	f, err := c.filter()
	if err != nil {
		return err
	}
	limit, err := c.number("limit", wire.MaxPage, wire.DefaultPage)
	if err != nil {
		return err
	}
	infos, token, err := list(c.Context(), f, limit, c.params.Get("page_token"))
	if err != nil {
		return err
	}
	out := s.appendInfos(c, infos, dead)
	out = append(out, `,"next_page_token":`...)
	out = wire.AppendString(out, token)
	c.reply(append(out, '}'))
	return nil
}

// appendInfos is an object with the messages, but for its closing brace.
func (s *Server) appendInfos(c *call, infos []scheduler.Info, dead bool) []byte {
	out, now := append(c.memory().out[:0], `{"messages":[`...), c.shard.Now()
	for i := range infos {
		if i > 0 {
			out = append(out, ',')
		}
		infos[i].Known = true // a message that is listed is known
		out = wire.AppendInfo(out, &infos[i], wire.Show{
			Dead: dead, Next: s.plans.Next(&infos[i], now, wire.ListedFirings),
		})
	}
	return append(out, ']')
}

func (s *Server) cancel(c *call) error {
	stop, err := c.flag("stop")
	if err != nil {
		return err
	}
	recall, err := c.flag("recall")
	if err != nil {
		return err
	}
	req, err := cancelRequest(stop, recall)
	if err != nil {
		return err
	}
	if err := c.nothing(); err != nil {
		return err
	}
	return s.change(c, req)
}

// cancelRequest is the change that a cancel asks for.
func cancelRequest(stop, recall bool) (scheduler.ChangeRequest, error) {
	switch {
	case stop && recall:
		return scheduler.ChangeRequest{}, delay.Invalid("recall", "does not go with stop")
	case stop:
		return scheduler.ChangeRequest{Change: scheduler.StopRetrying}, nil
	default:
		return scheduler.ChangeRequest{Change: scheduler.Cancel, Recall: recall}, nil
	}
}

func (s *Server) fire(c *call) error {
	if err := c.nothing(); err != nil {
		return err
	}
	return s.change(c, scheduler.ChangeRequest{Change: scheduler.Fire})
}

func (s *Server) pauseSchedule(c *call) error {
	if err := c.nothing(); err != nil {
		return err
	}
	return s.change(c, scheduler.ChangeRequest{Change: scheduler.PauseSchedule})
}

func (s *Server) resumeSchedule(c *call) error {
	if err := c.nothing(); err != nil {
		return err
	}
	return s.change(c, scheduler.ChangeRequest{Change: scheduler.ResumeSchedule})
}

func (s *Server) reschedule(c *call) error {
	body, err := c.body(maxSmallBytes)
	if err != nil {
		return err
	}
	due, err := wire.DecodePatch(body, c.shard.Now())
	if err != nil {
		return err
	}
	return s.change(c, scheduler.ChangeRequest{Change: scheduler.Reschedule, Due: due})
}

// change makes one change of the message in the path and answers with the verdict (S5).
func (s *Server) change(c *call, req scheduler.ChangeRequest) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	req.ID, c.change.ID = id, string(id)
	res, err := changeOne(c.lasting(), c.shard, req)
	if err != nil {
		return err
	}
	c.change.Answer = res.Verdict.String()
	status, code := http.StatusOK, ""
	switch res.Verdict {
	case scheduler.TooLate:
		k := kindOf(delay.ErrTooLate)
		status, code = k.status, k.code.String()
	case scheduler.NotFound:
		k := kindOf(delay.ErrNotFound)
		status, code = k.status, k.code.String()
	}
	writeJSON(c.w, status, appendVerdict(c.memory().out[:0], id, &res, code))
	return nil
}

// changeOne makes one change. An error means that there is no verdict.
func changeOne(ctx context.Context, shard access.Shard, req scheduler.ChangeRequest) (
	scheduler.ChangeResult, error) {
	requests, results := [1]scheduler.ChangeRequest{req}, [1]scheduler.ChangeResult{}
	if err := shard.Change(ctx, requests[:], results[:]); err != nil {
		return results[0], err
	}
	return results[0], results[0].Err
}

func appendVerdict(out []byte, id delay.ID, res *scheduler.ChangeResult, code string) []byte {
	out = append(out, `{"id":`...)
	out = wire.AppendString(out, string(id))
	out = append(out, `,"result":"`...)
	out = append(out, res.Verdict.String()...)
	out = append(out, '"')
	if res.Verdict != scheduler.NotFound && res.Verdict != scheduler.RecallRequested {
		out = append(out, `,"durability":"`...)
		out = append(out, res.Durability.String()...)
		out = append(out, '"')
	}
	switch res.Verdict {
	case scheduler.Rescheduled, scheduler.Fired, scheduler.ScheduleResumed:
		out = wire.AppendDues(out, res.Due)
	case scheduler.TooLate:
		out = append(out, `,"state":"`...)
		out = append(out, res.State.String()...)
		out = append(out, '"')
	}
	if code == "" {
		return append(out, '}')
	}
	message := "no such message"
	if res.Verdict == scheduler.TooLate {
		message = "the message is already " + res.State.String()
	}
	out = append(out, `,"code":"`...)
	out = append(out, code...)
	out = append(out, `","message":`...)
	out = wire.AppendString(out, message)
	return append(out, '}')
}
