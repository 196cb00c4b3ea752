// SPDX-License-Identifier: Apache-2.0

package exam

// Mutations are the mistakes that were made by hand.
func Mutations() []Mutation {
	return []Mutation{}
}
