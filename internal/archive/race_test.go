//go:build race

package archive

// underRace tells that the race detector is on, which multiplies memory.
const underRace = true
