// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the protocol's; it signs, it does not hide
	"encoding/base64"
	"maps"
	"slices"
)

// The fields of a signed request.
const (
	fieldAccessKey = "AccessKey"
	fieldSignature = "Signature"
	fieldToken     = "SecurityToken"
)

// sign adds who we are to a request.
func (c *Client) sign(cmd *Command) {
	if c.cfg.AccessKey == "" {
		return
	}
	if cmd.Fields == nil {
		cmd.Fields = map[string]string{}
	}
	cmd.Fields[fieldAccessKey] = c.cfg.AccessKey
	if c.cfg.SecurityToken != "" {
		cmd.Fields[fieldToken] = c.cfg.SecurityToken
	}
	cmd.Fields[fieldSignature] = Signature(cmd, c.cfg.SecretKey)
}

// Signature is what proves that cmd comes from who knows secret: HMAC-SHA1, in base64, of the
// values of its fields in the order of their names, and its body.
func Signature(cmd *Command, secret string) string {
	mac := hmac.New(sha1.New, []byte(secret))
	for _, name := range slices.Sorted(maps.Keys(cmd.Fields)) {
		if name != fieldSignature {
			mac.Write([]byte(cmd.Fields[name]))
		}
	}
	mac.Write(cmd.Body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
