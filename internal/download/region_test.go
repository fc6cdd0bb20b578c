package download

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// The bucket is in another region than the client: the request is signed for that one
// after the first answer, and from then on.
func TestBucketInAnotherRegion(t *testing.T) {
	var there, elsewhere atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(regionHeader, "eu-west-1")
		if !strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/s3/") {
			elsewhere.Add(1)
			w.WriteHeader(http.StatusMovedPermanently)
			return
		}
		there.Add(1)
		w.Header().Set("ETag", `"e"`)
	}))
	defer srv.Close()
	client := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(srv.URL), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider("x", "x", ""),
	})
	bucket := NewBucket(NewRegional(client), "b", "images/")
	for range 3 {
		if o, err := bucket.Head(t.Context(), "images/a.tar"); err != nil || o.ETag != "e" {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	if there.Load() != 3 || elsewhere.Load() != 1 {
		t.Errorf("%d requests to the right region and %d to the wrong one, want 3 and 1",
			there.Load(), elsewhere.Load())
	}
}

// A region that does not help is not tried for ever.
func TestRegionThatDoesNotHelp(t *testing.T) {
	var n atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		w.Header().Set(regionHeader, "eu-west-1")
		w.WriteHeader(http.StatusForbidden)
	}))
	defer srv.Close()
	client := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(srv.URL), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider("x", "x", ""),
	})
	bucket := NewBucket(NewRegional(client), "b", "images/")
	for range 2 {
		if _, err := bucket.Head(t.Context(), "images/a.tar"); err == nil {
			t.Error("no error")
		}
	}
	if n.Load() != 3 {
		t.Errorf("%d requests for two calls, want 3", n.Load())
	}
}
