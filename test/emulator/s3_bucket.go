package emulator

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// buckets is S3. Its mutex guards everything below it; the bodies are in files, which are
// written and read without it. It may be held when a queue's is taken, never the other
// way round.
type buckets struct {
	clock       Clock
	region      string
	spool       *spool
	courier     *courier
	checkPolicy bool

	mu        sync.Mutex
	named     map[string]*bucket
	sequencer int64
}

func newBuckets(cfg Config, sp *spool, c *courier) *buckets {
	return &buckets{
		clock: cfg.Clock, region: cfg.Region, spool: sp, courier: c, checkPolicy: cfg.CheckPolicy,
		named: map[string]*bucket{},
	}
}

// bucket is one bucket.
type bucket struct {
	name, region string
	created      time.Time
	versioning   string // "", "Enabled" or "Suspended"
	notification notificationConfiguration

	keys    []string              // sorted
	objects map[string][]*version // by key, the oldest first
	uploads map[string]*upload    // by id
}

// find returns a bucket. The mutex is held.
func (b *buckets) find(name string) (*bucket, error) {
	if k := b.named[name]; k != nil {
		return k, nil
	}
	return nil, errNoBucket
}

// next is a sequencer, greater than all before. The mutex is held.
func (b *buckets) next() string {
	b.sequencer = max(b.sequencer+1, b.clock.Now().UnixNano())
	return fmt.Sprintf("00%016X", b.sequencer)
}

// sameRegion refuses a request that is signed for another region than the bucket's.
func (b *buckets) sameRegion(name string, r *http.Request) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.named[name]
	_, scope, signed := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	parts := strings.Split(scope, "/")
	if k == nil || !signed || len(parts) < 3 || parts[2] == k.region {
		return nil
	}
	return errOtherRegion.withHeader("X-Amz-Bucket-Region", k.region)
}

type listBucketsResult struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListAllMyBucketsResult"`
	Owner   owner
	Buckets []bucketEntry `xml:"Buckets>Bucket"`
}

type bucketEntry struct {
	Name         string
	CreationDate string
}

type owner struct {
	ID, DisplayName string
}

var theOwner = owner{Account, "emulator"}

func (c *s3Call) listBuckets(w http.ResponseWriter, _ *http.Request) error {
	c.buckets.mu.Lock()
	result := listBucketsResult{Owner: theOwner}
	for _, name := range slices.Sorted(maps.Keys(c.buckets.named)) {
		result.Buckets = append(result.Buckets, bucketEntry{name, timestamp(c.buckets.named[name].created)})
	}
	c.buckets.mu.Unlock()
	c.answer(w, http.StatusOK, result)
	return nil
}

// timestamp is how S3 writes a time in XML.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

var validBucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

type createBucketConfiguration struct {
	LocationConstraint string
}

// createBucket answers 200 for a bucket that is there and in us-east-1, as AWS does for
// historical reasons.
func (c *s3Call) createBucket(w http.ResponseWriter, r *http.Request) error {
	var cfg createBucketConfiguration
	if err := document(r, &cfg); err != nil {
		return err
	}
	if !validBucketName.MatchString(c.bucket) || strings.Contains(c.bucket, "..") {
		return errBucketName
	}
	region := cfg.LocationConstraint
	if region == "" {
		region = c.buckets.region
	}
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	if k := c.buckets.named[c.bucket]; k != nil && k.region != "us-east-1" {
		return errBucketExists
	} else if k == nil {
		c.buckets.named[c.bucket] = &bucket{
			name: c.bucket, region: region, created: c.buckets.clock.Now(), objects: map[string][]*version{},
			uploads: map[string]*upload{},
		}
	}
	w.Header().Set("Location", "/"+c.bucket)
	w.WriteHeader(http.StatusOK)
	return nil
}

func (c *s3Call) headBucket(w http.ResponseWriter, _ *http.Request) error {
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		return err
	}
	w.Header().Set("X-Amz-Bucket-Region", k.region)
	w.WriteHeader(http.StatusOK)
	return nil
}

func (c *s3Call) deleteBucket(w http.ResponseWriter, _ *http.Request) error {
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		return err
	}
	if len(k.objects) > 0 {
		return errNotEmpty
	}
	for _, u := range k.uploads {
		c.buckets.drop(u)
	}
	delete(c.buckets.named, c.bucket)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

type locationResult struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ LocationConstraint"`
	Region  string   `xml:",chardata"`
}

// getBucketLocation answers nothing for us-east-1, as AWS does.
func (c *s3Call) getBucketLocation(w http.ResponseWriter, _ *http.Request) error {
	c.buckets.mu.Lock()
	k, err := c.buckets.find(c.bucket)
	c.buckets.mu.Unlock()
	if err != nil {
		return err
	}
	result := locationResult{}
	if k.region != "us-east-1" {
		result.Region = k.region
	}
	c.answer(w, http.StatusOK, result)
	return nil
}

type versioningConfiguration struct {
	XMLName xml.Name `xml:"VersioningConfiguration"`
	Status  string   `xml:",omitempty"`
}

func (c *s3Call) getBucketVersioning(w http.ResponseWriter, _ *http.Request) error {
	c.buckets.mu.Lock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		c.buckets.mu.Unlock()
		return err
	}
	result := versioningConfiguration{Status: k.versioning}
	c.buckets.mu.Unlock()
	c.answer(w, http.StatusOK, result)
	return nil
}

func (c *s3Call) putBucketVersioning(w http.ResponseWriter, r *http.Request) error {
	var cfg versioningConfiguration
	if err := document(r, &cfg); err != nil {
		return err
	}
	if cfg.Status != "Enabled" && cfg.Status != "Suspended" {
		return errMalformedXML
	}
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		return err
	}
	k.versioning = cfg.Status
	w.WriteHeader(http.StatusOK)
	return nil
}
