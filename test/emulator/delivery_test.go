package emulator_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"imagemanager.internal/test/emulator"
)

func TestDeliveries(t *testing.T) {
	w := emulated(t, emulator.Config{})
	b, q := w.notified()
	bodies := func() []string {
		var all []string
		for _, m := range w.receive(q, 0, 300) {
			all = append(all, *m.Body)
		}
		return all
	}
	keys := func(body string) []string {
		var n notice
		w.check(json.Unmarshal([]byte(body), &n))
		var all []string
		for _, r := range n.Records {
			all = append(all, r.S3.Object.Key)
		}
		return all
	}
	for name, c := range map[string]struct {
		how  emulator.Delivery
		want func(t *testing.T, got []string)
	}{
		"copies": {emulator.Delivery{Copies: 3}, func(t *testing.T, got []string) {
			if len(got) != 9 || got[0] != got[1] || got[0] == got[3] {
				t.Errorf("%d messages", len(got))
			}
		}},
		"several records": {emulator.Delivery{Records: 2}, func(t *testing.T, got []string) {
			if len(got) != 2 || !slices.Equal(keys(got[0]), []string{"1", "2"}) ||
				!slices.Equal(keys(got[1]), []string{"3"}) {
				t.Errorf("%s", got)
			}
		}},
		"reversed": {emulator.Delivery{Hold: 3}, func(t *testing.T, got []string) {
			if len(got) != 3 || keys(got[0])[0] != "3" || keys(got[2])[0] != "1" {
				t.Errorf("%s", got)
			}
		}},
		"lost": {emulator.Delivery{Lose: true}, func(t *testing.T, got []string) {
			if len(got) != 0 {
				t.Errorf("%s", got)
			}
		}},
		"SNS": {emulator.Delivery{Envelope: emulator.SNS}, func(t *testing.T, got []string) {
			var e struct{ Type, Message string }
			w.check(json.Unmarshal([]byte(got[0]), &e))
			if len(got) != 3 || e.Type != "Notification" || keys(e.Message)[0] != "1" {
				t.Errorf("%s", got)
			}
		}},
		"EventBridge": {
			emulator.Delivery{Envelope: emulator.EventBridge, Records: 2},
			func(t *testing.T, got []string) {
				if len(got) != 3 || eventBridgeKey(t, got[2]) != "3" {
					t.Errorf("%s", got)
				}
			},
		},
		"EventBridge in SNS": {
			emulator.Delivery{Envelope: emulator.EventBridgeInSNS},
			func(t *testing.T, got []string) {
				var e struct{ Message string }
				w.check(json.Unmarshal([]byte(got[0]), &e))
				if len(got) != 3 || eventBridgeKey(t, e.Message) != "1" {
					t.Errorf("%s", got)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.emu.Deliver(c.how)
			for _, key := range []string{"1", "2", "3"} {
				w.in(t).put(b, key, "x")
			}
			w.emu.Clear()
			c.want(t, bodies())
		})
	}
	t.Run("one event fails", func(t *testing.T) {
		w.emu.Fault(emulator.Fault{Op: "Notify", Status: 500, Times: 1})
		w.in(t).put(b, "lost", "x")
		w.in(t).put(b, "kept", "x")
		if got := bodies(); len(got) != 1 || keys(got[0])[0] != "kept" {
			t.Errorf("%s", got)
		}
	})
}

// eventBridgeKey is the key of an event of EventBridge, of which it checks the frame.
func eventBridgeKey(t *testing.T, body string) string {
	t.Helper()
	var e struct {
		Source     string
		DetailType string `json:"detail-type"`
		Detail     struct {
			Reason string
			Object struct {
				Key  string
				ETag string `json:"etag"`
				Size int
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatal(err)
	}
	if e.Source != "aws.s3" || e.DetailType != "Object Created" || e.Detail.Reason != "PutObject" ||
		e.Detail.Object.Size != 1 || e.Detail.Object.ETag == "" {
		t.Errorf("%s", body)
	}
	return e.Detail.Object.Key
}

// A slow body takes its time, by the emulator's clock.
func TestFaultRate(t *testing.T) {
	clock := emulator.NewManualClock(time.Now())
	w := emulated(t, emulator.Config{Clock: clock})
	b, text := w.newBucket(), content(1000)
	w.put(b, "k", text)
	w.emu.Fault(emulator.Fault{Op: "GetObject", Rate: 100})
	began := clock.Now()
	done := make(chan string)
	go func() {
		got, err := w.read(t.Context(), b, "k")
		if err != nil {
			t.Error(err)
		}
		done <- got
	}()
	var got string
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for got == "" {
		select {
		case got = <-done:
		case <-tick.C:
			clock.Advance(10 * time.Millisecond)
		}
	}
	if took := clock.Now().Sub(began); got != text || took < 9*time.Second {
		t.Errorf("%d bytes at 100 bytes/s in %s", len(got), took)
	}
}
