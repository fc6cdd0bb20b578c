package devmapper

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestCheckNoSignature(t *testing.T) {
	for _, s := range signatures {
		b := strings.Repeat("\x00", int(s.offset)) + s.magic
		err := checkNoSignature(strings.NewReader(b), "/dev/x", uuid.Nil)
		if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), s.name) {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	for name, b := range map[string]string{
		"empty": "", "blank": strings.Repeat("\x00", 1<<20),
		"text": strings.Repeat("x", 1<<20),
	} {
		if err := checkNoSignature(strings.NewReader(b), "/dev/x", uuid.Nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
