package emulator_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/test/emulator"
)

// bare is the emulator on a day on which it leaves out what not every server has.
type bare struct {
	emu      http.Handler
	headers  []string       // of S3's answers
	elements *regexp.Regexp // of S3's documents; may be nil
	fields   []string       // of SQS's answers
}

func (b bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := httptest.NewRecorder()
	b.emu.ServeHTTP(answer, r)
	text := answer.Body.Bytes()
	for name, values := range answer.Header() {
		if !slices.Contains(b.headers, name) {
			w.Header()[name] = values
		}
	}
	var doc map[string]any
	switch {
	case r.Header.Get("X-Amz-Target") != "" && json.Unmarshal(text, &doc) == nil:
		b.prune(doc)
		text, _ = json.Marshal(doc) // it was JSON
	case answer.Header().Get("Content-Type") == "application/xml" && b.elements != nil:
		text = b.elements.ReplaceAll(text, nil)
	}
	if r.Method != http.MethodHead && answer.Code != http.StatusNoContent && answer.Code != http.StatusNotModified {
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(text) // the client went
}

// prune takes the fields out of a document, however deep they are.
func (b bare) prune(x any) {
	switch x := x.(type) {
	case map[string]any:
		for name, value := range x {
			if slices.Contains(b.fields, name) {
				delete(x, name)
			}
			b.prune(value)
		}
	case []any:
		for _, value := range x {
			b.prune(value)
		}
	}
}

// Against a server that leaves fields out the suite fails test by test. It does not
// panic, which would also end the tests that follow.
func TestSuiteOutlivesBareAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		bare  bare
		tests []string
	}{
		"headers": {
			bare: bare{headers: []string{
				"Accept-Ranges", "Content-Disposition", "Content-Range", "Last-Modified", "Cache-Control",
				"Content-Type", "X-Amz-Bucket-Region",
				"X-Amz-Delete-Marker", "X-Amz-Mp-Parts-Count", "X-Amz-Tagging-Count", "X-Amz-Version-Id",
				"X-Amz-Server-Side-Encryption",
			}},
			tests: []string{
				"TestBuckets", "TestObjects", "TestRanges", "TestVersions", "TestMultipart", "TestTagging",
				"TestEncryptionIsSaid",
			},
		},
		"ETags": {
			bare: bare{headers: []string{"Etag"}},
			tests: []string{
				"TestObjects", "TestConditions", "TestMultipart", "TestMultipartChecksums",
				"TestNotifications",
			},
		},
		"elements": {
			bare: bare{elements: regexp.MustCompile(
				`<(CreationDate|ETag|Id|IsLatest|IsTruncated|Key|KeyCount|LastModified|NextMarker|PartNumber|` +
					`Size|StorageClass|Value|VersionId)>[^<]*</[A-Za-z]+>|` +
					`<Filter>.*</Filter>|<QueueConfiguration>.*</QueueConfiguration>`)},
			tests: []string{
				"TestBuckets", "TestListing", "TestMultipart", "TestNotifications", "TestTagging",
				"TestVersions",
			},
		},
		"documents": {
			bare: bare{elements: regexp.MustCompile(
				`<(Contents|CommonPrefixes|CopyPartResult|Upload|Version|DeleteMarker|Part|Deleted).*</[A-Za-z]+>`)},
			tests: []string{"TestListing", "TestMultipart", "TestObjects", "TestVersions"},
		},
		"fields": { // not the Id of a batch's entry: without it the SDK panics (SendMessageBatch, service/sqs 1.52.11)
			bare: bare{fields: []string{
				"Body", "Code", "MD5OfBody", "MD5OfMessageAttributes", "MD5OfMessageBody",
				"MessageAttributes", "MessageId", "SourceArn",
			}},
			tests: []string{"TestBatches", "TestDeadLetters", "TestDelivery", "TestLease", "TestNotifications"},
		},
		"attributes": {
			bare:  bare{fields: []string{"Attributes", "QueueUrl", "ReceiptHandle"}},
			tests: []string{"TestBatches", "TestDeadLetters", "TestLease", "TestNotifications", "TestQueues"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := suiteAgainst(t, c.bare, c.tests)
			if strings.Contains(out, "panic:") || !strings.Contains(out, "--- FAIL") {
				t.Errorf("want failures and no panic:\n%s", out)
			}
			for _, test := range c.tests {
				if !regexp.MustCompile(`(?m)^--- [A-Z]+: ` + test + ` `).MatchString(out) {
					t.Errorf("%s did not end", test)
				}
			}
		})
	}
}

// suiteAgainst runs tests of this package in a process of their own.
func suiteAgainst(t *testing.T, b bare, tests []string) string {
	t.Helper()
	emu, err := emulator.New(emulator.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	b.emu = emu
	srv := httptest.NewServer(b)
	defer func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
	}()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.timeout=2m", "-test.run=^("+
		strings.Join(tests, "|")+")$")
	cmd.Env = append(os.Environ(), endpointVariable+"="+srv.URL, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=x",
		"AWS_SECRET_ACCESS_KEY=x")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // the tests fail, as they shall
	return out.String()
}

// What the SDK answers is read with aws.ToString and the like: a pointer of it may be
// nil.
func TestSuiteFollowsNoPointer(t *testing.T) {
	files, err := filepath.Glob("conformance_*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, name := range append(files, "suite_test.go") {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		isType := map[ast.Node]bool{}
		ast.Inspect(file, func(n ast.Node) bool {
			for _, typ := range typesIn(n) {
				isType[typ] = true
			}
			if star, ok := n.(*ast.StarExpr); ok && !isType[star] {
				t.Errorf("%s: follows a pointer", fset.Position(star.Pos()))
			}
			return true
		})
	}
}

// typesIn are the children of a node that are types, so that "*" is not a dereference
// there.
func typesIn(n ast.Node) []ast.Node {
	switch n := n.(type) {
	case *ast.Field:
		return []ast.Node{n.Type}
	case *ast.ValueSpec:
		return []ast.Node{n.Type}
	case *ast.CompositeLit:
		return []ast.Node{n.Type}
	case *ast.ArrayType:
		return []ast.Node{n.Elt}
	case *ast.MapType:
		return []ast.Node{n.Key, n.Value}
	case *ast.ChanType:
		return []ast.Node{n.Value}
	case *ast.TypeAssertExpr:
		return []ast.Node{n.Type}
	case *ast.CallExpr: // of a generic function
		if index, ok := n.Fun.(*ast.IndexExpr); ok {
			return []ast.Node{index.Index}
		}
	}
	return nil
}
