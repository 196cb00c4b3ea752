// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

func stored() Message {
	return Message{
		Topic: "orders", Queue: 3, Offset: 12, Physical: 99_000, Flag: 7, Reconsumed: 2, Prepared: 5,
		Born: 1_800_000_000_000, Stored: 1_800_000_000_004,
		BornHost:   netip.MustParseAddrPort("10.1.2.3:4567"),
		StoreHost:  netip.MustParseAddrPort("127.0.0.1:10911"),
		Properties: Properties{{PropertyUniqueKey, "U1"}, {"ä", "\"<>&"}, {"empty", ""}},
		Body:       []byte("hello"),
	}
}

// The layout is a broker's: what it wrote must be read, to the last field.
func TestMessagesOfARealBroker(t *testing.T) {
	all, err := DecodeMessages(fromBroker(t, "ordinary"))
	require.NoError(t, err)
	require.Len(t, all, 3)
	m := all[0]
	require.NoError(t, m.Err)
	require.Equal(t, "TJSON", m.Topic)
	require.Equal(t, "hello", string(m.Body))
	require.Equal(t, int32(7), m.Flag)
	require.Equal(t, int64(229), all[1].Physical)
	require.Equal(t, 229, m.Size)
	require.Equal(t, "ä\"<>&\\", m.Properties.Value("a"))
	require.Equal(t, "k1 k2", m.Properties.Value(PropertyKeys))
	require.Equal(t, "127.0.0.1:21354", m.StoreHost.String())
	host, at, err := ParseMessageID(all[1].MessageID())
	require.NoError(t, err)
	require.Equal(t, all[1].StoreHost, host)
	require.Equal(t, int64(229), at)
	require.Empty(t, all[2].Body)

	all, err = DecodeMessages(fromBroker(t, "timer"))
	require.NoError(t, err)
	require.Equal(t, TopicTimer, all[0].Topic)
	require.Equal(t, "TJSON", all[0].Properties.Value(PropertyRealTopic))
	require.NotEmpty(t, all[0].Properties.Value(PropertyTimerOut))
	require.Equal(t, "TJSON+T1", all[1].Properties.Value(PropertyTimerDelete))
}

// What the fake broker writes must be what a real one writes, byte for byte.
func TestAppendWritesWhatABrokerWrites(t *testing.T) {
	for _, name := range []string{"ordinary", "timer"} {
		body := fromBroker(t, name)
		all, err := DecodeMessages(body)
		require.NoError(t, err)
		var again []byte
		for i := range all {
			again, err = all[i].Append(again)
			require.NoError(t, err)
		}
		require.Equal(t, len(body), len(again), name)
		require.Equal(t, body, again, name)
	}
}

// Hosts of IPv6 and topics of more than 127 bytes have another length.
func TestMessagesRoundTrip(t *testing.T) {
	plain, six, long := stored(), stored(), stored()
	six.BornHost = netip.MustParseAddrPort("[2001:db8::1]:4567")
	six.StoreHost = netip.MustParseAddrPort("[::1]:1")
	long.Topic, long.Properties, long.Body = strings.Repeat("t", 128), nil, nil
	var b []byte
	for _, m := range []*Message{&plain, &six, &long} {
		var err error
		b, err = m.Append(b)
		require.NoError(t, err)
	}
	golden(t, "stored.bin", b)
	got, err := DecodeMessages(b)
	require.NoError(t, err)
	six.SysFlag = sysBornV6 | sysStoreV6
	long.Body = []byte{}
	for i, want := range []Message{plain, six, long} {
		require.NoError(t, got[i].Err)
		want.Size = got[i].Size
		require.Equal(t, want, got[i])
	}
}

// A flipped bit in one body must be seen, and must not take the neighbours along.
func TestChecksumOfABody(t *testing.T) {
	m := stored()
	b, err := m.Append(nil)
	require.NoError(t, err)
	one := len(b)
	b, err = m.Append(b)
	require.NoError(t, err)
	b[bytes.Index(b, []byte("hello"))] ^= 1
	got, err := DecodeMessages(b)
	require.NoError(t, err)
	require.ErrorIs(t, got[0].Err, delay.ErrCorrupt)
	require.Equal(t, int64(12), got[0].Offset, "the rest of it holds")
	require.NoError(t, got[1].Err)
	require.Equal(t, one, got[1].Size)
}

func deflated(t *testing.T, body []byte) []byte {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, err := z.Write(body)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

// Producers compress bodies above 4 KiB by themselves: they must arrive as they were, what cannot
// be inflated must say so, and a bomb must not go off (M2).
func TestPackedBodies(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 2000)
	for _, c := range []struct {
		flags int32
		body  []byte
		want  error
	}{
		{SysCompressed, deflated(t, body), nil},
		{SysCompressed | sysPackingZlib, deflated(t, body), nil},
		{SysCompressed | sysPackingLZ4, body, delay.ErrUnimplemented},
		{SysCompressed | sysPackingZstd, body, delay.ErrUnimplemented},
		{SysCompressed | 0x400, body, delay.ErrUnimplemented},
		{sysInnerBatch, body, delay.ErrUnimplemented},
		{SysCompressed, body, delay.ErrCorrupt},
		{SysCompressed, deflated(t, body)[:20], delay.ErrCorrupt},
		{SysCompressed, deflated(t, make([]byte, MaxInflated+1)), delay.ErrCorrupt},
	} {
		m := stored()
		m.SysFlag, m.Body = c.flags, c.body
		b, err := m.Append(nil)
		require.NoError(t, err)
		got, err := DecodeMessages(b)
		require.NoError(t, err)
		if c.want != nil {
			require.ErrorIs(t, got[0].Err, c.want, "%#x", c.flags)
			continue
		}
		require.NoError(t, got[0].Err)
		require.Equal(t, body, got[0].Body)
		require.Zero(t, got[0].SysFlag)
	}
}

// Lengths inside of a message may point anywhere.
func TestMessageLengthsAreNotBelieved(t *testing.T) {
	m := stored()
	good, err := m.Append(nil)
	require.NoError(t, err)
	for at := range good {
		for _, v := range []byte{0, 0x7f, 0x80, 0xff} {
			b := bytes.Clone(good)
			b[at] = v
			if _, err := DecodeMessages(b); err != nil {
				require.ErrorIs(t, err, delay.ErrCorrupt)
			}
		}
		_, err := DecodeMessages(good[:at])
		if at > 0 {
			require.ErrorIs(t, err, delay.ErrCorrupt)
		}
	}
}

func FuzzDecodeMessages(f *testing.F) {
	m := stored()
	b, err := m.Append(nil)
	require.NoError(f, err)
	f.Add(b)
	f.Add(fromBroker(f, "ordinary"))
	f.Add(fromBroker(f, "timer"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := DecodeMessages(b)
		if err != nil {
			require.ErrorIs(t, err, delay.ErrCorrupt)
		}
		size := 0
		for i := range all {
			size += all[i].Size
		}
		require.LessOrEqual(t, size, len(b))
	})
}

func FuzzDecodeBatch(f *testing.F) {
	b, err := appendBatched(nil, &Outgoing{Flag: 1, Body: []byte("b"), Properties: Properties{{"a", "b"}}})
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := DecodeBatch(b)
		if err != nil {
			require.ErrorIs(t, err, delay.ErrCorrupt)
			return
		}
		var again []byte
		for i := range all {
			if again, err = appendBatched(again, &all[i]); err != nil {
				return // properties may be stored that are too long to send
			}
		}
		same, err := DecodeBatch(again)
		require.NoError(t, err)
		require.Equal(t, len(all), len(same))
	})
}

// A batch's layout is the broker's too; it takes what this writes (integration tests ask it).
func TestBatchIsGolden(t *testing.T) {
	var b []byte
	var err error
	for _, m := range []Outgoing{
		{Flag: 3, Body: []byte("one"), Properties: Properties{{PropertyUniqueKey, "1"}}}, {},
	} {
		b, err = appendBatched(b, &m)
		require.NoError(t, err)
	}
	golden(t, "batch.bin", b)
	require.Equal(t, uint32(len(b)-batchedMin), binary.BigEndian.Uint32(b))
}

// A property may smuggle in another, and what does not fit must be refused, not cut.
func TestPropertiesThatCannotBeWritten(t *testing.T) {
	for _, p := range []Properties{
		{{"", "v"}}, {{"a\x01", "v"}}, {{"a\x02", "v"}}, {{"a", "v\x02DELAY\x013"}},
		{{"a", strings.Repeat("v", MaxPropertyBytes)}},
	} {
		_, err := p.Encode()
		require.ErrorIs(t, err, delay.ErrInvalid)
	}
	s, err := Properties{{"a", "1"}, {"a", "2"}}.Encode()
	require.NoError(t, err)
	require.Equal(t, "2", ParseProperties(s).Value("a"))
	require.Empty(t, ParseProperties("nothing\x02\x01v\x02"))
}

// A handle names what is recalled: one of another's must not be taken for it.
func TestRecallHandles(t *testing.T) {
	const theirs = "djEgVEpTT04gYnJva2VyLWEgMTc5NTMwMTczMTAwMSBUMQ==" // of a broker
	h, err := ParseRecallHandle(theirs)
	require.NoError(t, err)
	require.Equal(t, RecallHandle{"TJSON", "broker-a", 1_795_301_731_001, "T1"}, h)
	require.Equal(t, theirs, h.String())
	for _, bad := range []string{"", "x", "djIgYSBiIDEgYw==", "djEgYSBiIHggYw==", "djEgYSBiIC0xIGM="} {
		_, err := ParseRecallHandle(bad)
		require.ErrorIs(t, err, delay.ErrInvalid, bad)
	}
}

// Ids come from outside.
func TestMessageIDs(t *testing.T) {
	m := stored()
	m.StoreHost = netip.MustParseAddrPort("[2001:db8::1]:10911")
	host, at, err := ParseMessageID(m.MessageID())
	require.NoError(t, err)
	require.Equal(t, m.StoreHost, host)
	require.Equal(t, m.Physical, at)
	for _, bad := range []string{"", "zz", "7F00", strings.Repeat("0", 34)} {
		_, _, err := ParseMessageID(bad)
		require.ErrorIs(t, err, delay.ErrInvalid)
	}
}
