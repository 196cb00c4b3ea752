// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A broker that controls access refuses in words for who configures the broker. Who configures this
// client must learn what of theirs is wrong, and not be told so of other refusals.
func TestRefusedForWhoAsks(t *testing.T) {
	for remark, advice := range map[string]string{
		"username cannot be null.": " (access is controlled there, and no access_key is configured)",
		"User:who is not found.":   " (it knows nobody with the access_key that is configured)",
		"check signature failed.":  " (the secret_key is not that of the access_key)",
		"User:a has no permission to access Topic:t from 127.0.0.1, no matched policies.": "",
		"the topic[t] sending message is forbidden":                                       "",
	} {
		e := answered("pull", "b:1", &Command{Code: NoPermission, Remark: remark})
		require.Equal(t, "pull b:1: answer 16: "+remark+advice, e.Error())
		e.Code = SystemError
		require.NotContains(t, e.Error(), " (", "another answer")
	}
}
