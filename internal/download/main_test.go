package download

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if arg := os.Getenv(childEnv); arg != "" {
		fmt.Fprintln(os.Stderr, "not killed:", fetchAsChild(arg))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

const (
	bucket = "b"
	key    = "images/a b+c.tar"
	tag    = "0123456789abcdef0123456789abcdef"
	page   = "<html><body>Please log in, or come back after the maintenance.</body></html>" // of a proxy
)

// notified is the object as a notification would name it.
func notified(size int) Object { return Object{Bucket: bucket, Key: key, ETag: tag, Size: int64(size)} }

// client is made as the program makes it, by LoadDefaultConfig: a client made by hand
// does not validate checksums.
func client(t testing.TB, h http.Handler) *s3.Client {
	t.Helper()
	api, _ := clientAndURL(t, h)
	return api
}

func clientAndURL(t testing.TB, h http.Handler) (*s3.Client, string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_CONFIG_FILE": os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(name, value)
	}
	api, err := clientOf(t.Context(), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return api, server.URL
}

func clientOf(ctx context.Context, url string) (*s3.Client, error) {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion("us-east-1"), config.WithBaseEndpoint(url),
		// the one type that AWS_CA_BUNDLE in the environment allows
		config.WithHTTPClient(awshttp.NewBuildableClient()))
	return s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true }), err
}

func downloader(t testing.TB, api API, cfg Config) *Downloader {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "blobs")
	}
	d, err := New(api, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// list is what the directory holds.
func list(t testing.TB, d *Downloader) []string {
	t.Helper()
	names, err := d.List()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func wantFiles(t testing.TB, d *Downloader, want ...string) {
	t.Helper()
	if got := list(t, d); !slices.Equal(got, want) {
		t.Errorf("files are %q, want %q", got, want)
	}
}

// wantBlob compares the blob, and the file behind it, with the bytes and the ETag that
// were served.
func wantBlob(t testing.TB, d *Downloader, name string, blob Blob, data []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(d.cfg.Dir, name))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the file holds %d bytes (%v), and not the %d served", len(got), err, len(data))
	}
	if sum := sumOf(data); blob.SHA256 != sum || blob.Size != int64(len(data)) || blob.ETag != tag ||
		blob.Path != filepath.Join(d.cfg.Dir, name) {
		t.Errorf("blob is %+v; served were %d bytes with SHA-256 %s and ETag %s", blob, len(data), sum, tag)
	}
	if checked, err := d.Check(context.Background(), blob); err != nil || checked != blob {
		t.Errorf("Check says %+v, %v of the blob just fetched", checked, err)
	}
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// noise is n bytes that are the same every time, and nowhere alike.
func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // it never fails
	return data
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
}

// s3Checksum is the value of the header X-Amz-Checksum-*.
func s3Checksum(algorithm string, data []byte) string {
	h := checksum{Algorithm: types.ChecksumAlgorithm(strings.ToUpper(algorithm))}.newHash()
	if h == nil {
		h = sha256.New()
	}
	_, _ = h.Write(data) // a hash never fails
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// fake is an S3 without a socket, for tests in a bubble.
type fake func(ctx context.Context) (*s3.GetObjectOutput, error)

func (f fake) GetObject(ctx context.Context, _ *s3.GetObjectInput, _ ...func(*s3.Options)) (*s3.GetObjectOutput,
	error,
) {
	return f(ctx)
}

func (f fake) HeadObject(context.Context, *s3.HeadObjectInput, ...func(*s3.Options)) (*s3.HeadObjectOutput, error) {
	return nil, errors.ErrUnsupported
}

// reader is a body made of one function.
type reader func(p []byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }
func (r reader) Close() error               { return nil }

// serve is an S3 that answers with the body and the length, none if that is negative.
func serve(length int, body func(ctx context.Context) reader) fake {
	return func(ctx context.Context) (*s3.GetObjectOutput, error) {
		out := &s3.GetObjectOutput{Body: body(ctx), ETag: aws.String(`"` + tag + `"`)}
		if length >= 0 {
			out.ContentLength = aws.Int64(int64(length))
		}
		return out, nil
	}
}
