package provision

import (
	"testing"

	"github.com/rs/zerolog"
)

// How far a stage has come can be asked at any time, not only when it is logged.
func TestProgress(t *testing.T) {
	r := NewRecorder(nil, zerolog.Nop(), nil)
	task := &Task{Progress: &Progress{}}
	report := r.progress(task, 100)
	report(40)
	report(41)
	if done, total := task.Progress.Bytes(); done != 41 || total != 100 {
		t.Errorf("%d of %d", done, total)
	}
	r.progress(&Task{}, 1)(1) // nobody asks
}
