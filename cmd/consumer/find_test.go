package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// An image is found by any of its names. What may be another one is not taken for it.
func TestNames(t *testing.T) {
	j := begun(t)
	j.pending("images/debian/12.tar", "1")
	j.pending("images/ubuntu/12.tar", "2")
	j.pending("images/debian/12.tar", "3")
	j.pending("other/images/debian/x.tar", "4")
	for name, c := range map[string]struct {
		code int
		says string
	}{
		"1":                                 {0, "1"},
		"images/debian/12.tar":              {0, "1 3"},
		"debian/12.tar":                     {0, "1 3"},
		"x.tar":                             {0, "4"},
		"s3://demo/images/debian/12.tar":    {0, "1 3"},
		"s3://another/images/debian/12.tar": {5, "consumer images"},
		"s3://demo/debian/12.tar":           {5, "consumer images"},
		"s3://demo":                         {5, "consumer images"},
		"12.tar":                            {2, "is the end of 2 keys: images/debian/12.tar, images/ubuntu/12.tar"},
		"2.tar":                             {5, "consumer images"}, // no whole part
		"99":                                {5, "image 99"},
		"images/":                           {5, "consumer images"},
	} {
		code, text := perform(t, "history --json "+name)
		if code == 0 {
			text = strings.Join(imagesIn(t, text), " ")
		}
		if code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s: exit code %d, want %d and %q: %s", name, code, c.code, c.says, text)
		}
	}
}

// imagesIn returns the ids of the images in the JSON of a history.
func imagesIn(t *testing.T, text string) []string {
	t.Helper()
	var events []struct {
		Image json.Number `json:"image_id"`
	}
	if err := json.Unmarshal([]byte(text), &events); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range events {
		ids = append(ids, e.Image.String())
	}
	return slices.Compact(ids)
}

// Submit takes every name of an image, and the key of an object that has none yet.
func TestNamesForSubmit(t *testing.T) {
	j := begun(t)
	j.pending("images/debian/12.tar", "1")
	j.pending("images/ubuntu/12.tar", "2")
	c := &call{system: &system{cfg: config{Bucket: "demo", Prefix: "images/"}, store: j.Store}}
	for name, want := range map[string]string{
		"images/new.tar":           "images/new.tar",
		"new.tar":                  "new.tar",
		"1":                        "images/debian/12.tar",
		"debian/12.tar":            "images/debian/12.tar",
		"s3://demo/images/new.tar": "images/new.tar",
		"s3://other/images/12.tar": "S3_BUCKET, which is demo",
		"12.tar":                   "the end of 2 keys",
	} {
		key, err := c.objectKey(t.Context(), name)
		if err != nil {
			key = err.Error()
		}
		if !strings.Contains(key, want) || (err == nil) != (key == want) {
			t.Errorf("%s: %q, want %q", name, key, want)
		}
	}
}
