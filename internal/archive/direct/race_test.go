//go:build race

package direct

// underRace tells that the race detector is on, which multiplies memory.
const underRace = true
