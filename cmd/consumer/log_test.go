package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Nobody reads for a while: one line takes as long as a line may, the others no time;
// once somebody reads, the log goes on, and says what is missing.
func TestPatientLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		log := newPatientLog(w)
		began := time.Now()
		for i := range 1000 {
			if n, err := fmt.Fprintf(log, "line %d\n", i); err != nil || n < 7 {
				t.Fatal(n, err)
			}
		}
		if took := time.Since(began); took != logPatience {
			t.Errorf("1000 lines that nobody reads took %s, want %s", took, logPatience)
		}
		var got bytes.Buffer
		read := make(chan error, 1)
		go func() {
			_, err := io.Copy(&got, r)
			read <- err
		}()
		synctest.Wait()
		fmt.Fprintln(log, "line 1000")
		fmt.Fprintln(log, "line 1001")
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if err := <-read; err != nil {
			t.Error(err)
		}
		lines := strings.Split(strings.TrimSpace(got.String()), "\n")
		if len(lines) != 4 || lines[0] != "line 0" || !strings.Contains(lines[1], `"lines":999`) ||
			lines[3] != "line 1001" {
			t.Errorf("%q", lines)
		}
	})
}

// A line is written when Write returns, and its bytes are the caller's again.
func TestPatientLogIsSynchronous(t *testing.T) {
	var got bytes.Buffer
	log, line := newPatientLog(&got), []byte("x\n")
	for i := range byte(20) {
		line[0] = 'a' + i
		if _, err := log.Write(line); err != nil || got.Bytes()[2*i] != 'a'+i {
			t.Fatalf("after line %d: %q, %v", i, got.String(), err)
		}
	}
}

// A line of the log has milliseconds, in its time and in a duration.
func TestLogHasMilliseconds(t *testing.T) {
	var out bytes.Buffer
	log := newLogger("info", "", &out, false)
	log.Info().Dur("took_ms", 1500*time.Microsecond).Msg("x")
	var line struct {
		Time string `json:"time"`
		Took int    `json:"took_ms"`
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if _, err := time.Parse(logTime, line.Time); err != nil || len(line.Time) < len("2006-01-02T15:04:05.000Z") {
		t.Errorf("time %q: %v", line.Time, err)
	}
	if line.Took != 1 {
		t.Errorf("took %d ms, want 1", line.Took)
	}
}

// JSON for machines, and lines for people: on a terminal, or wherever asked for. Colours
// are for a terminal alone.
func TestLogFormat(t *testing.T) {
	t.Setenv("NO_COLOR", "") // the console's writer heeds it
	for _, c := range []struct {
		format   string
		terminal bool
		json     bool
	}{
		{"", false, true},
		{"", true, false},
		{"json", true, true},
		{"JSON", true, true},
		{"console", false, false},
		{"Console", true, false},
	} {
		var out bytes.Buffer
		log := newLogger("info", c.format, &out, c.terminal)
		log.Info().Str("s3_key", "k").Msg("downloaded")
		text := out.String()
		if json.Valid(out.Bytes()) != c.json || !strings.Contains(text, "downloaded") {
			t.Errorf("%+v: %s", c, text)
		}
		if colours := strings.Contains(text, "\x1b["); colours != (c.terminal && !c.json) {
			t.Errorf("%+v: colours: %t", c, colours)
		}
	}
}
