package download

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Checksums are asked for by the request itself: a client made without LoadDefaultConfig
// would not.
func TestRequestAsksForChecksum(t *testing.T) {
	if got := getInput(notified(1)).ChecksumMode; got != types.ChecksumModeEnabled {
		t.Errorf("checksum mode is %q", got)
	}
}

// The request is pinned and asks for bytes as they are stored.
func TestRequest(t *testing.T) {
	cases := map[string]struct {
		obj              Object
		ifMatch, version string
	}{
		"by ETag":            {Object{ETag: tag}, `"` + tag + `"`, ""},
		"by quoted ETag":     {Object{ETag: `"` + tag + `"`}, `"` + tag + `"`, ""},
		"by version":         {Object{VersionID: "v1", ETag: tag}, "", "v1"},
		"older than version": {Object{VersionID: "null", ETag: tag}, `"` + tag + `"`, ""},
		"by weak ETag":       {Object{ETag: `W/"` + tag + `"`}, `"` + tag + `"`, ""},
		"not at all":         {Object{}, "", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := downloader(t, client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if got := r.Header.Get("If-Match"); got != c.ifMatch {
					t.Errorf("If-Match is %s, want %s", got, c.ifMatch)
				}
				if got := r.URL.Query().Get("versionId"); got != c.version {
					t.Errorf("versionId is %s, want %s", got, c.version)
				}
				if r.Method != http.MethodGet || r.URL.Path != "/"+bucket+"/"+key {
					t.Errorf("asked %s %q", r.Method, r.URL.Path)
				}
				if got := r.Header.Get("Accept-Encoding"); got == "gzip" {
					t.Error("asks for gzip: the transport would unpack it, and length and checksum not be the object's")
				}
				object("X-Amz-Version-Id", "v7", "Content-Encoding", "gzip")(w, r)
			})), Config{})
			c.obj.Bucket, c.obj.Key = bucket, key
			blob, err := d.Fetch(t.Context(), "1.tar", c.obj, nil)
			if err != nil {
				t.Fatal(err)
			}
			if blob.VersionID != "v7" {
				t.Errorf("version is %q, S3 said v7", blob.VersionID)
			}
			wantBlob(t, d, "1.tar", blob, payload)
		})
	}
}

// A name is the name of a file in the directory, or nothing is asked and nothing touched.
func TestNames(t *testing.T) {
	d := downloader(t, client(t,
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("S3 was asked") })), Config{})
	outside := filepath.Join(filepath.Dir(d.cfg.Dir), "outside")
	write(t, outside, "keep")
	write(t, filepath.Join(d.cfg.Dir, "1.tar"), "keep")
	for _, name := range []string{
		"", ".", "..", "../outside", "a/b", "/etc/passwd", "./1.tar", "1.tar/", "a/..",
		"1.tar.part",
	} {
		if _, err := d.Fetch(t.Context(), name, notified(1), nil); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Fetch to %q: %v", name, err)
		}
		if name == "1.tar.part" {
			continue
		}
		if err := d.Remove(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Remove of %q: %v", name, err)
		}
	}
	wantFiles(t, d, "1.tar")
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}

// Several names at once do not disturb each other.
func TestFetchConcurrently(t *testing.T) {
	d := downloader(t, client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(filepath.Base(r.URL.Path))
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("ETag", `"`+tag+`"`)
		_, _ = w.Write(payload[n:])
	})), Config{})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			name := strconv.Itoa(i) + ".tar"
			blob, err := d.Fetch(t.Context(), name, Object{Bucket: bucket, Key: "images/" + strconv.Itoa(i)}, nil)
			if err != nil {
				t.Error(err)
				return
			}
			wantBlob(t, d, name, blob, payload[i:])
		})
	}
	all.Wait()
}
