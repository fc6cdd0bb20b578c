// Command passes passes three failpoints.
package main

import (
	"fmt"

	"imagemanager.internal/internal/failpoint"
)

func main() {
	for _, word := range []string{"first", "second", "third"} {
		failpoint.Here("at", word)
		fmt.Println(word)
	}
}
