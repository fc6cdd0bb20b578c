package emulator

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const s3Namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// s3Call is one request to S3.
type s3Call struct {
	buckets     *buckets
	bucket, key string
	query       url.Values
	op          string
	run         func(*s3Call, http.ResponseWriter, *http.Request) error
}

// scope is what a path names.
type scope int

const (
	ofService scope = iota
	ofBucket
	ofObject
)

// s3Route says which operation a request is: its method, what its path names, and a query
// or header that must be there.
type s3Route struct {
	method string
	scope  scope
	query  string
	header string
	op     string
	run    func(*s3Call, http.ResponseWriter, *http.Request) error
}

// s3Routes has the more special ones first. A run of nil is an operation that is not
// emulated.
var s3Routes = []s3Route{
	{"GET", ofService, "", "", "ListBuckets", (*s3Call).listBuckets},

	{"GET", ofBucket, "location", "", "GetBucketLocation", (*s3Call).getBucketLocation},
	{"GET", ofBucket, "versioning", "", "GetBucketVersioning", (*s3Call).getBucketVersioning},
	{"PUT", ofBucket, "versioning", "", "PutBucketVersioning", (*s3Call).putBucketVersioning},
	{"GET", ofBucket, "notification", "", "GetBucketNotificationConfiguration", (*s3Call).getNotification},
	{"PUT", ofBucket, "notification", "", "PutBucketNotificationConfiguration", (*s3Call).putNotification},
	{"GET", ofBucket, "versions", "", "ListObjectVersions", (*s3Call).listObjectVersions},
	{"GET", ofBucket, "uploads", "", "ListMultipartUploads", (*s3Call).listMultipartUploads},
	{"POST", ofBucket, "delete", "", "DeleteObjects", (*s3Call).deleteObjects},
	{"GET", ofBucket, "list-type", "", "ListObjectsV2", (*s3Call).listObjects},
	{"GET", ofBucket, "", "", "ListObjects", (*s3Call).listObjects},
	{"PUT", ofBucket, "", "", "CreateBucket", (*s3Call).createBucket},
	{"HEAD", ofBucket, "", "", "HeadBucket", (*s3Call).headBucket},
	{"DELETE", ofBucket, "", "", "DeleteBucket", (*s3Call).deleteBucket},

	{"GET", ofObject, "tagging", "", "GetObjectTagging", (*s3Call).getObjectTagging},
	{"PUT", ofObject, "tagging", "", "PutObjectTagging", (*s3Call).putObjectTagging},
	{"DELETE", ofObject, "tagging", "", "DeleteObjectTagging", (*s3Call).deleteObjectTagging},
	{"GET", ofObject, "uploadId", "", "ListParts", (*s3Call).listParts},
	{"POST", ofObject, "uploads", "", "CreateMultipartUpload", (*s3Call).createMultipartUpload},
	{"POST", ofObject, "uploadId", "", "CompleteMultipartUpload", (*s3Call).completeMultipartUpload},
	{"DELETE", ofObject, "uploadId", "", "AbortMultipartUpload", (*s3Call).abortMultipartUpload},
	{"PUT", ofObject, "partNumber", "X-Amz-Copy-Source", "UploadPartCopy", (*s3Call).uploadPartCopy},
	{"PUT", ofObject, "partNumber", "", "UploadPart", (*s3Call).uploadPart},
	{"PUT", ofObject, "", "X-Amz-Copy-Source", "CopyObject", (*s3Call).copyObject},
	{"PUT", ofObject, "", "", "PutObject", (*s3Call).putObject},
	{"GET", ofObject, "", "", "GetObject", (*s3Call).getObject},
	{"HEAD", ofObject, "", "", "HeadObject", (*s3Call).getObject},
	{"DELETE", ofObject, "", "", "DeleteObject", (*s3Call).deleteObject},
}

// elsewhere are the sub-resources of operations that are not emulated: such a request
// must not be taken for one that is.
var elsewhere = []string{
	"accelerate", "acl", "analytics", "attributes", "cors", "encryption", "intelligent-tiering", "inventory",
	"legal-hold", "lifecycle", "logging",
	"metrics", "object-lock", "ownershipControls", "policy", "policyStatus", "publicAccessBlock", "replication",
	"requestPayment", "restore",
	"retention", "select", "tagging", "torrent", "website",
}

func newS3Call(b *buckets, r *http.Request) *s3Call {
	c := &s3Call{buckets: b, query: r.URL.Query(), op: "Unknown"}
	c.bucket, c.key, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	at := ofService
	switch {
	case c.key != "":
		at = ofObject
	case c.bucket != "":
		at = ofBucket
	}
	if slices.ContainsFunc(elsewhere, c.query.Has) && (at != ofObject || !c.query.Has("tagging")) {
		return c
	}
	for _, route := range s3Routes {
		fits := route.method == r.Method && route.scope == at
		if fits && (route.query == "" || c.query.Has(route.query)) &&
			(route.header == "" || r.Header.Get(route.header) != "") {
			c.op, c.run = route.op, route.run
			break
		}
	}
	return c
}

func (c *s3Call) name() (op, target string) {
	if c.key == "" {
		return c.op, c.bucket
	}
	return c.op, c.bucket + "/" + c.key
}

func (c *s3Call) serve(w http.ResponseWriter, r *http.Request, _ Fault) {
	err := c.checks(r)
	if err == nil {
		err = c.run(c, w, r)
	}
	if err == nil {
		return
	}
	var e *apiError
	if !errors.As(err, &e) {
		e = errS3Internal.with("%v", err)
	}
	c.refuse(w, r, e)
}

// checks is what every operation refuses.
func (c *s3Call) checks(r *http.Request) error {
	switch {
	case c.run == nil && slices.ContainsFunc(elsewhere, c.query.Has):
		return errNotImplemented
	case c.run == nil:
		return errMethod
	case len(c.key) > 1024:
		return errKeyTooLong
	}
	if err := c.expired(); err != nil {
		return err
	}
	return c.buckets.sameRegion(c.bucket, r)
}

// expired refuses a presigned URL whose time is over. Its signature is not looked at.
func (c *s3Call) expired() error {
	if !c.query.Has("X-Amz-Expires") {
		return nil
	}
	began, err := time.Parse("20060102T150405Z", c.query.Get("X-Amz-Date"))
	seconds, err2 := strconv.Atoi(c.query.Get("X-Amz-Expires"))
	if err != nil || err2 != nil {
		return errArgument.with("X-Amz-Date and X-Amz-Expires do not say a time")
	}
	if c.buckets.clock.Now().After(began.Add(time.Duration(seconds) * time.Second)) {
		return errExpiredRequest
	}
	return nil
}

// refuse answers with an error. Answers to HEAD, and 304, have no body.
func (c *s3Call) refuse(w http.ResponseWriter, r *http.Request, e *apiError) {
	for key, values := range e.header {
		w.Header()[key] = values
	}
	if r.Method == http.MethodHead || e.status == http.StatusNotModified {
		w.WriteHeader(e.status)
		return
	}
	id := w.Header().Get("X-Amz-Request-Id")
	c.answer(w, e.status, s3Error{Code: e.code, Message: e.message, Resource: r.URL.Path, RequestID: id, HostID: id})
}

// answer writes an XML document.
func (c *s3Call) answer(w http.ResponseWriter, status int, doc any) {
	text, err := xml.Marshal(doc)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte("<Error><Code>InternalError</Code></Error>")
	}
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(xml.Header)+len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, xml.Header) // the client went
	_, _ = w.Write(text)
}

// document reads an XML body. An empty one leaves the document as it is.
func document(r *http.Request, doc any) error {
	text, err := io.ReadAll(io.LimitReader(payload(r), maxRequest))
	if err != nil {
		return errIncomplete
	}
	if len(text) == 0 {
		return nil
	}
	if err := xml.Unmarshal(text, doc); err != nil {
		return errMalformedXML.with("%s: %v", errMalformedXML.message, err)
	}
	return nil
}
