package devmapper

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestStampCheck(t *testing.T) {
	cfg := Config{UUID: uuid.NewString(), Data: "/the/data", Metadata: "/the/metadata"}
	resting := dataStamp{owner: cfg.owner(), generation: 7, next: 7}
	announced := dataStamp{owner: cfg.owner(), generation: 7, next: 8}
	for _, tt := range []struct {
		name       string
		stamp      dataStamp
		unstamped  bool
		generation uint64
		says       string
	}{
		{"the same", resting, false, 7, ""},
		{"announced and not raised", announced, false, 7, ""},
		{"announced and raised", announced, false, 8, ""},
		{"older data", resting, false, 8, "the data on /the/data are a copy"},
		{"older data, cut off in RaiseGeneration", announced, false, 9, "the data on /the/data are a copy"},
		{"older metadata", resting, false, 6, "the metadata on /the/metadata are a copy"},
		{"no stamp", resting, true, 7, "does not hold this pool's data"},
		{"another's", dataStamp{owner: uuid.New(), generation: 7, next: 7}, false, 7, "another pool"},
	} {
		err := tt.stamp.check(!tt.unstamped, cfg, tt.generation)
		if tt.says == "" != (err == nil) || err != nil &&
			(!errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
