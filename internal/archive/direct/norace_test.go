//go:build !race

package direct

const underRace = false
