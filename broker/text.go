// SPDX-License-Identifier: Apache-2.0

package broker

// HeaderText is s as a header of text carries it: visible ASCII and single inner spaces as they
// are, a percent sign and every other byte as %XX. Receivers trim spaces and disagree on other
// bytes, and two ids must never look the same to them. The result is always a copy.
func HeaderText(s string) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+8)
	for i := range len(s) {
		c := s[i]
		inner := c == ' ' && i > 0 && i < len(s)-1
		if c > ' ' && c < 0x7f && c != '%' || inner && s[i-1] != ' ' {
			b = append(b, c)
			continue
		}
		b = append(b, '%', hex[c>>4], hex[c&15])
	}
	return string(b)
}
