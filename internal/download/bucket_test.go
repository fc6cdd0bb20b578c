package download

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
)

func TestHead(t *testing.T) {
	cases := map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"there":   {object("X-Amz-Version-Id", "v7"), nil},
		"gone":    {bare(404, ""), ErrGone},
		"denied":  {bare(403, ""), ErrDenied},
		"S3 ill":  {bare(500, ""), nil},
		"no head": {bare(405, ""), ErrGone},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := NewBucket(client(t, c.answer), bucket, prefix).Head(t.Context(), key)
			if name == "there" {
				if want := (Object{bucket, key, "v7", tag, int64(len(payload))}); err != nil || got != want {
					t.Errorf("%+v, %v, want %+v", got, err, want)
				}
				return
			}
			for _, s := range sentinels {
				if err == nil || errors.Is(err, s) != errors.Is(c.want, s) {
					t.Errorf("%v: is %v: %t", err, s, errors.Is(err, s))
				}
			}
		})
	}
}

// The pages together are the listing, each object once; ETags come without quotes.
func TestPages(t *testing.T) {
	const perPage, pages = 2, 3
	b := NewBucket(client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		page, err := strconv.Atoi(q.Get("continuation-token") + "0")
		if err != nil || q.Get("prefix") != prefix || q.Get("list-type") != "2" {
			t.Errorf("asked %s: %v", r.URL, err)
		}
		page /= 10
		fmt.Fprint(w, "<ListBucketResult>")
		for i := range perPage {
			fmt.Fprintf(w, "<Contents><Key>images/%d</Key><ETag>&quot;%s&quot;</ETag><Size>%d</Size></Contents>", page*perPage+i, tag, i)
		}
		if page+1 < pages {
			fmt.Fprintf(w, "<IsTruncated>true</IsTruncated><NextContinuationToken>%d</NextContinuationToken>", page+1)
		}
		fmt.Fprint(w, "</ListBucketResult>")
	})), bucket, prefix)
	var got []Object
	for token, asked := "", 0; asked == 0 || token != ""; asked++ {
		page, next, err := b.Page(t.Context(), token)
		if err != nil || asked == pages {
			t.Fatalf("page %d: %v", asked, err)
		}
		got, token = append(got, page...), next
	}
	var want []Object
	for i := range perPage * pages {
		want = append(want, Object{Bucket: bucket, Key: fmt.Sprintf("images/%d", i), ETag: tag, Size: int64(i % perPage)})
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestPageFails(t *testing.T) {
	for code, want := range map[string]error{"NoSuchBucket": ErrNoBucket, "AccessDenied": ErrDenied} {
		if _, _, err := NewBucket(client(t, failing(404, code)), bucket, prefix).Page(t.Context(), ""); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", code, err, want)
		}
	}
}
