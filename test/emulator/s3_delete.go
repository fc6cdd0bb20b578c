package emulator

import (
	"encoding/xml"
	"net/http"
)

// deleted is what a delete did.
type deleted struct {
	marker  bool   // a marker was made, or taken away
	version string // of the marker, or the version taken away; empty without versioning
}

// delete removes a version or, in a bucket with versions and without an id, puts a marker
// before them. Deleting what does not exist is not an error. The mutex is held.
func (b *buckets) delete(k *bucket, key, id string) (deleted, *version) {
	defer k.tidy(key)
	switch {
	case id != "":
		v := b.dropVersion(k, key, id)
		return deleted{v != nil && v.marker, id}, v
	case k.versioning == "":
		return deleted{}, b.dropVersion(k, key, nullVersion)
	}
	v := &version{marker: true}
	b.put(k, key, v)
	return deleted{true, v.id}, v
}

// remove deletes and notifies. The mutex is held.
func (c *s3Call) remove(w http.ResponseWriter, r *http.Request, k *bucket, key, id string) deleted {
	done, v := c.buckets.delete(k, key, id)
	if v == nil {
		return done
	}
	name := "ObjectRemoved:Delete"
	if v.marker && id == "" {
		name = "ObjectRemoved:DeleteMarkerCreated"
	}
	of := *c
	of.key = key
	c.buckets.notify(k, of.event(w, r, k, v, name))
	return done
}

func (c *s3Call) deleteObject(w http.ResponseWriter, r *http.Request) error {
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		return err
	}
	done := c.remove(w, r, k, c.key, c.query.Get("versionId"))
	announce(w.Header(), done.version)
	if done.marker {
		w.Header().Set("X-Amz-Delete-Marker", "true")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

type deleteRequest struct {
	Quiet   bool
	Objects []struct {
		Key       string
		VersionID string `xml:"VersionId"`
	} `xml:"Object"`
}

type deleteResult struct {
	XMLName xml.Name       `xml:"http://s3.amazonaws.com/doc/2006-03-01/ DeleteResult"`
	Deleted []deletedEntry `xml:",omitempty"`
}

type deletedEntry struct {
	Key                   string
	VersionID             string `xml:"VersionId,omitempty"`
	DeleteMarker          bool   `xml:",omitempty"`
	DeleteMarkerVersionID string `xml:"DeleteMarkerVersionId,omitempty"`
}

func (c *s3Call) deleteObjects(w http.ResponseWriter, r *http.Request) error {
	var in deleteRequest
	if err := document(r, &in); err != nil {
		return err
	}
	if len(in.Objects) == 0 || len(in.Objects) > maxKeys {
		return errMalformedXML
	}
	result, err := c.deleteEach(w, r, in)
	if err != nil {
		return err
	}
	c.answer(w, http.StatusOK, result)
	return nil
}

func (c *s3Call) deleteEach(w http.ResponseWriter, r *http.Request, in deleteRequest) (deleteResult, error) {
	var result deleteResult
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		return result, err
	}
	for _, o := range in.Objects {
		done := c.remove(w, r, k, o.Key, o.VersionID)
		if in.Quiet {
			continue
		}
		e := deletedEntry{Key: o.Key, VersionID: o.VersionID, DeleteMarker: done.marker}
		if done.marker {
			e.DeleteMarkerVersionID = done.version
		}
		result.Deleted = append(result.Deleted, e)
	}
	return result, nil
}
