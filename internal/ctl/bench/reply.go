// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

// tally reads the reply to a request of n messages: how many were accepted, and why the first of
// the others was not. ids, when not nil, receives the accepted ids (JSON only).
func tally(e Encoding, single bool, reply []byte, n int, ids *[]string) (accepted int, why error) {
	switch {
	case e == Protobuf:
		return tallyProtobuf(reply)
	case single:
		var r client.Receipt
		if err := json.Unmarshal(reply, &r); err != nil || r.ID == "" {
			return 0, fmt.Errorf("reply is no receipt: %.100s", reply)
		}
		if ids != nil {
			*ids = append(*ids, r.ID)
		}
		return 1, nil
	}
	results, bad, err := client.ScanReceipts(reply, ids)
	if err != nil {
		return 0, err
	}
	if results+len(bad) != n {
		return results, fmt.Errorf("%d results for %d messages", results+len(bad), n)
	}
	if len(bad) > 0 {
		why = fmt.Errorf("refused: %.200s", bad[0])
	}
	return results, why
}

func tallyProtobuf(b []byte) (accepted int, why error) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b[1:])
		if b[0] != tagResults || n <= 0 || size > uint64(len(b)-1-n) {
			return accepted, fmt.Errorf("reply is no SendResponse: % x", b[:min(len(b), 16)])
		}
		item := b[1+n : 1+n+int(size)]
		b = b[1+n+int(size):]
		if len(item) > 0 && item[0] == tagReceipt {
			accepted++
		} else if why == nil {
			why = fmt.Errorf("refused: %.200q", item)
		}
	}
	return accepted, why
}
