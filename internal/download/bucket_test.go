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
		"gone":    {bare(404, "", requestID, "1"), ErrGone},
		"denied":  {bare(403, "", requestID, "1"), ErrDenied},
		"S3 ill":  {bare(500, ""), nil},
		"no head": {bare(405, "", requestID, "1"), ErrGone},

		"404 of a proxy": {bare(404, ""), ErrNotS3},
		"403 of a proxy": {bare(403, ""), ErrNotS3},
		"405 of a proxy": {bare(405, ""), ErrNotS3},
		"page":           {bare(200, page), ErrNotS3},
		"page with ETag": {bare(200, page, "ETag", `"5d52b17f-264"`, "Content-Type", "text/html"), ErrNotS3},
		"no ETag":        {bare(200, "", requestID, "1"), ErrNotS3},
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
			fmt.Fprintf(w, "<Contents><Key>images/%d</Key><ETag>&quot;%s&quot;</ETag><Size>%d</Size></Contents>",
				page*perPage+i, tag, i)
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
		want = append(want, Object{
			Bucket: bucket, Key: fmt.Sprintf("images/%d", i), ETag: tag,
			Size: int64(i % perPage),
		})
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestPageFails(t *testing.T) {
	for code, want := range map[string]error{"NoSuchBucket": ErrNoBucket, "AccessDenied": ErrDenied} {
		if _, _, err := NewBucket(client(t, failing(404, code)), bucket, prefix).
			Page(t.Context(), ""); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", code, err, want)
		}
	}
}

// A token that S3 does not know is told apart from what else may be wrong with a listing.
func TestPageOfAnUnknownToken(t *testing.T) {
	for code, want := range map[string]bool{"InvalidArgument": true, "AccessDenied": false, "NoSuchBucket": false} {
		b := NewBucket(client(t, failing(400, code)), bucket, prefix)
		for _, token := range []string{"t", ""} {
			if _, _, err := b.Page(t.Context(), token); errors.Is(err, ErrToken) != (want && token != "") {
				t.Errorf("%s of token %q: %v", code, token, err)
			}
		}
	}
}

// A probe finds out whether the bucket answers, by a listing of one key and no more.
func TestProbe(t *testing.T) {
	listing := "<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount></ListBucketResult>"
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		ok     bool
		want   error
	}{
		"empty":       {answer: bare(200, listing), ok: true},
		"no name, id": {answer: bare(200, "<ListBucketResult/>", requestID, "1"), ok: true},
		"no bucket":   {answer: failing(404, "NoSuchBucket"), want: ErrNoBucket},
		"denied":      {answer: failing(403, "AccessDenied"), want: ErrDenied},
		"signature":   {answer: failing(403, "SignatureDoesNotMatch"), want: ErrCredentials},
		"ill":         {answer: failing(503, "SlowDown")},
		"page":        {answer: bare(200, page), want: ErrNotS3},
		"torn":        {answer: bare(200, listing[:30]), want: ErrNotS3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
			err := NewBucket(client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if q := r.URL.Query(); q.Get("max-keys") != "1" || q.Get("prefix") != prefix ||
					q.Get("list-type") != "2" {
					t.Errorf("asked for %s", r.URL)
				}
				c.answer(w, r)
			})), bucket, prefix).Probe(t.Context())
			if (err == nil) != c.ok || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if err != nil && !errors.Is(err, ErrDenied) && Scope(err) != AllObjects {
				t.Errorf("%v is of scope %d", err, Scope(err))
			}
		})
	}
}

// A HEAD says the same of a key that is not there as of a bucket that is not there.
func TestHeadWithoutBucket(t *testing.T) {
	b := NewBucket(client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(requestID, "1")
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		refuse(w, http.StatusNotFound, "NoSuchBucket")
	})), bucket, prefix)
	if _, err := b.Head(t.Context(), key); !errors.Is(err, ErrNoBucket) || errors.Is(err, ErrGone) {
		t.Errorf("%v, want ErrNoBucket", err)
	}
}

// An object that is older than the bucket's versions has none.
func TestHeadOfNullVersion(t *testing.T) {
	got, err := NewBucket(client(t, object("X-Amz-Version-Id", "null", "ETag", `W/"`+tag+`"`)), bucket, prefix).
		Head(t.Context(), key)
	if err != nil || got.VersionID != "" || got.ETag != tag {
		t.Errorf("%+v, %v", got, err)
	}
}
