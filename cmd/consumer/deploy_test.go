package main

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// The environment file of the unit has every setting with its meaning and its default.
func TestEnvironmentFile(t *testing.T) {
	var want strings.Builder
	fields := reflect.TypeFor[config]()
	for i := range fields.NumField() {
		tag := fields.Field(i).Tag
		if name := tag.Get("envconfig"); name != "" {
			fmt.Fprintf(&want, "# %s\n#%s=%s\n\n", describe(name), name, tag.Get("default"))
		}
	}
	const file = "../../deploy/systemd/consumer.env"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), want.String()) {
		t.Errorf("%s does not have these settings; paste them:\n%s", file, want.String())
	}
}
