package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
)

// Which events are about one image: some senders leave the version id out, always or at
// times.
func TestIdentity(t *testing.T) {
	of := func(version, etag string) Object {
		return Object{Bucket: "b", Key: "images/a.tar", VersionID: version, ETag: etag, Size: 10}
	}
	other := of("", "e")
	other.Key = "images/b.tar"
	for name, c := range map[string]struct {
		events []Object
		want   []int // the image that each is about, counted from 1
	}{
		"without, then with": {[]Object{of("", "e"), of("v1", "e")}, []int{1, 1}},
		"with, then without": {[]Object{of("v1", "e"), of("", "e")}, []int{1, 1}},
		"without, with, and both again": {
			[]Object{of("", "e"), of("v1", "e"), of("", "e"), of("v1", "e")},
			[]int{1, 1, 1, 1},
		},
		"null, then without":  {[]Object{of("null", "e"), of("", "e")}, []int{1, 1}},
		"without, then null":  {[]Object{of("", "e"), of("null", "e")}, []int{1, 1}},
		"null is overwritten": {[]Object{of("null", "e"), of("null", "f")}, []int{1, 2}},
		"overwritten in between": {
			[]Object{of("", "e"), of("v2", "f"), of("v1", "e"), of("", "f")},
			[]int{1, 2, 1, 2},
		},
		"two versions, the same bytes": {[]Object{of("v1", "e"), of("v2", "e")}, []int{1, 2}},
		"the newest of two versions": {
			[]Object{of("v1", "e"), of("v2", "e"), of("", "e"), of("v1", "e")},
			[]int{1, 2, 2, 1},
		},
		"another key":               {[]Object{of("v1", "e"), other}, []int{1, 2}},
		"no eTag, and versions":     {[]Object{of("v1", ""), of("v2", ""), of("v1", "")}, []int{1, 2, 1}},
		"no eTag is no eTag of all": {[]Object{of("v1", ""), of("", "")}, []int{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			var got []int
			for i, o := range c.events {
				img, created, err := s.Enqueue(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				if found := must[Image](t)(s.Find(t.Context(), o)); found.ID != img.ID {
					t.Errorf("event %d is of image %d, and found as %d", i, img.ID, found.ID)
				}
				if first := !slices.Contains(got, int(img.ID)); created != first {
					t.Errorf("event %d: created: %t", i, created)
				}
				got = append(got, int(img.ID))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("the images are %v, want %v", got, c.want)
			}
		})
	}
}

// Both forms of one event at once, as S3 and EventBridge send them, make one image.
func TestIdentityAtOnce(t *testing.T) {
	s := newStore(t)
	var wg sync.WaitGroup
	for i := range 20 {
		o := object(i / 4)
		o.VersionID = []string{"", fmt.Sprintf("v%d", i/4)}[i%2]
		wg.Go(func() {
			if _, _, err := s.Enqueue(context.Background(), o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if images := must[[]Image](t)(s.Images(t.Context())); len(images) != 5 {
		t.Errorf("%d images of 5 objects", len(images))
	}
}
