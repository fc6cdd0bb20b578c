package archive

import (
	"bytes"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"imagemanager.internal/internal/archive/fstree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// judgeBytes checks an archive in memory.
func judgeBytes(t testing.TB, b []byte, policy Policy) (*Plan, error) {
	t.Helper()
	return Check(t.Context(), bytes.NewReader(b), int64(len(b)), Options{Policy: policy})
}

// records lists what a plan writes.
func records(t testing.TB, plan *Plan) []*fstree.Record {
	t.Helper()
	list, err := plan.Tree.AppendRecords(t.Context(), nil, plan.Root, "rootfs", make([]*[32]byte, plan.Tree.Len()))
	check(t, err)
	return list
}

// outcome is "" for an accepted archive, or the reason's code.
func outcome(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var r *Rejection
	if !errors.As(err, &r) {
		t.Fatalf("an error that is not a rejection: %v", err)
	}
	return string(r.Reason)
}
