// Package cloudformation checks templates against the schemas of their resources, without
// AWS: types, properties, kinds of values, and what references name.
package cloudformation

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
)

// Schema says what the resources of some types may hold.
type Schema struct {
	Source      string                `json:"source"`
	License     string                `json:"license"`
	Resources   map[string]Resource   `json:"resources"`   // by type, such as AWS::SQS::Queue
	Definitions map[string]Properties `json:"definitions"` // by the id that references have
}

// Resource is the schema of one type of resource.
type Resource struct {
	Properties Properties `json:"properties"`
	Attributes []string   `json:"attributes"` // for Fn::GetAtt
}

// Properties are the properties of an object by name.
type Properties map[string]Property

// Property is the schema of one property.
type Property struct {
	Required bool `json:"required,omitempty"`
	Type     Type `json:"type"`
}

// Type is the kind of a value: string, integer, number, boolean, json, tag, array or map
// (of Element), union (of Types), or ref (to a definition).
type Type struct {
	Type      string     `json:"type"`
	Allowed   []any      `json:"allowedValues,omitempty"` // none: any; looked at for strings alone
	Element   *Type      `json:"element,omitempty"`
	Types     []Type     `json:"types,omitempty"`
	Reference *Reference `json:"reference,omitempty"`
}

// Reference names a definition.
type Reference struct {
	ID string `json:"$ref"`
}

// database is the part used here of db.json.gz in npm's @aws-cdk/aws-service-spec.
type database struct {
	Schema struct {
		Resource struct {
			Entities []struct {
				Type       string              `json:"cloudFormationType"`
				Properties Properties          `json:"properties"`
				Attributes map[string]Property `json:"attributes"`
			} `json:"entities"`
		} `json:"resource"`
		TypeDefinition struct {
			Entities []struct {
				ID         string     `json:"$id"`
				Properties Properties `json:"properties"`
			} `json:"entities"`
		} `json:"typeDefinition"`
	} `json:"schema"`
}

// Extract reads the schemas of the named types from db.json.gz of npm's
// @aws-cdk/aws-service-spec, with the definitions that they refer to.
func Extract(gzipped io.Reader, types ...string) (*Schema, error) {
	unzipped, err := gzip.NewReader(gzipped)
	if err != nil {
		return nil, err
	}
	var db database
	if err := json.NewDecoder(unzipped).Decode(&db); err != nil {
		return nil, err
	}
	s := &Schema{Resources: map[string]Resource{}, Definitions: map[string]Properties{}}
	for _, name := range types {
		r, found := db.resource(name)
		if !found {
			return nil, fmt.Errorf("the database has no type %s", name)
		}
		s.Resources[name] = r
		db.define(s, r.Properties)
	}
	return s, nil
}

func (db *database) resource(name string) (Resource, bool) {
	for _, e := range db.Schema.Resource.Entities {
		if e.Type == name {
			return Resource{e.Properties, sortedKeys(e.Attributes)}, true
		}
	}
	return Resource{}, false
}

// define adds to s the definitions that the properties refer to, and those that these
// refer to.
func (db *database) define(s *Schema, properties Properties) {
	for _, p := range properties {
		for _, id := range p.Type.references() {
			if _, done := s.Definitions[id]; done {
				continue
			}
			s.Definitions[id] = db.definition(id)
			db.define(s, s.Definitions[id])
		}
	}
}

func (db *database) definition(id string) Properties {
	for _, e := range db.Schema.TypeDefinition.Entities {
		if e.ID == id {
			return e.Properties
		}
	}
	return nil
}

func (t Type) references() []string {
	var ids []string
	if t.Reference != nil {
		ids = append(ids, t.Reference.ID)
	}
	if t.Element != nil {
		ids = append(ids, t.Element.references()...)
	}
	for _, u := range t.Types {
		ids = append(ids, u.references()...)
	}
	return ids
}
