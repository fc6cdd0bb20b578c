package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"imagemanager.internal/internal/doctor"
)

// The form of what doctor prints, for people and for programs.
func TestGoldenDoctor(t *testing.T) {
	d := diagnose([]doctor.Finding{
		{Check: "settings", Result: doctor.OK, Text: "each can be read, and is within its limits"},
		{Check: "clock", Result: doctor.Warn, Text: "slow\x1b[31m", Remedy: "set it"},
		{Check: "pool", Result: doctor.Warn, Text: "not looked at", Remedy: "mend that first"},
		{Check: "pool-space", Result: doctor.Warn, Text: "not looked at", Remedy: "mend that first"},
		{
			Check: "bucket", Result: doctor.Fail, Text: strings.Repeat("long ", 40),
			Remedy: strings.Repeat("so is this ", 20),
		},
	})
	var text bytes.Buffer
	for _, o := range []output{{out: &text, room: 80}, {out: &text, asJSON: true}} {
		if err := d.print(&o); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "testdata/doctor.txt", text.String())
}

// The page on JSON has its fields, and the page for operators its checks.
func TestDoctorIsDocumented(t *testing.T) {
	fields := append(fieldsOf(reflect.TypeFor[diagnosis](), ""),
		fieldsOf(reflect.TypeFor[doctor.Finding](), "checks.")...)
	_, found := diagnosed(t)
	names := map[string]bool{}
	for _, f := range found.Checks {
		names[f.Check] = true
	}
	for page, words := range map[string][]string{"json.md": fields, "operating.md": keys(names)} {
		text, err := os.ReadFile(filepath.Join("../../docs", page))
		if err != nil {
			t.Fatal(err)
		}
		if len(words) < 7 {
			t.Errorf("only %q", words)
		}
		for _, word := range words {
			if !strings.Contains(string(text), "`"+word+"`") {
				t.Errorf("docs/%s does not mention %s", page, word)
			}
		}
	}
}

func keys(names map[string]bool) (all []string) {
	for name := range names {
		all = append(all, name)
	}
	return all
}

// diagnosed runs the command on a machine with nothing.
func diagnosed(t *testing.T) (code int, d diagnosis) {
	t.Helper()
	t.Setenv("STATE_DIR", filepath.Join(t.TempDir(), "none"))
	var out bytes.Buffer
	code = report(dispatch(t.Context(), []string{"doctor", "--json"}, &out), &bytes.Buffer{})
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatalf("%v: %s", err, out.Bytes())
	}
	return code, d
}

// It works where nothing is, not even settings, and leaves nothing behind. Each fault of
// the settings has a line.
func TestDoctorOfNothing(t *testing.T) {
	t.Setenv("MAX_DOWNLOADS", "many")
	code, d := diagnosed(t)
	if code != 1 || d.Fail == 0 || d.OK+d.Warn+d.Fail != len(d.Checks) {
		t.Errorf("exit code %d: %+v", code, d)
	}
	for _, want := range []string{"S3_BUCKET", "SQS_QUEUE_URL", "MAX_DOWNLOADS"} {
		named := false
		for _, f := range d.Checks {
			named = named || f.Check == "settings" && f.Result == doctor.Fail && strings.Contains(f.Text, want)
		}
		if !named {
			t.Errorf("%s is not named: %+v", want, d.Checks)
		}
	}
	if _, err := os.Stat(os.Getenv("STATE_DIR")); err == nil {
		t.Error("it made a state directory")
	}
}
