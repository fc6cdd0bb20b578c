package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

const (
	maxDepth  = 32     // nesting of a JSON document
	maxValues = 50_000 // in a JSON document; each takes memory
)

// object is a JSON object. Its keys are unique and case-sensitive, as the specifications
// of images demand. With structs of encoding/json they would not be: it ignores case and
// takes the last of two equal keys. Then two readers may see two images.
type object map[string]any

// errMalformedJSON is returned for a document with wrong syntax or a member of a wrong
// type.
var errMalformedJSON = errors.New("malformed JSON")

// parseStrictJSON parses one JSON value: UTF-8, without duplicate keys, with nothing
// after it, bounded in depth and number of values. The error is errMalformedJSON or the
// cause of ctx.
func parseStrictJSON(ctx context.Context, data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: not UTF-8", errMalformedJSON)
	}
	p := &jsonParser{dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	v, err := p.value(ctx, 0)
	if err != nil {
		return nil, err
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: data after the document", errMalformedJSON)
	}
	return v, nil
}

type jsonParser struct {
	dec    *json.Decoder
	values int
}

func (p *jsonParser) value(ctx context.Context, depth int) (any, error) {
	if p.values++; p.values > maxValues || depth > maxDepth {
		return nil, fmt.Errorf("%w: more than %d values or %d levels", errMalformedJSON, maxValues, maxDepth)
	}
	if p.values%1024 == 0 && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	token, err := p.dec.Token()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformedJSON, err)
	}
	switch token {
	case json.Delim('{'):
		return p.object(ctx, depth)
	case json.Delim('['):
		return p.array(ctx, depth)
	}
	return token, nil
}

func (p *jsonParser) object(ctx context.Context, depth int) (any, error) {
	o := object{}
	for p.dec.More() {
		token, err := p.dec.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errMalformedJSON, err)
		}
		name, ok := token.(string)
		if _, twice := o[name]; !ok || twice {
			return nil, fmt.Errorf("%w: the key %.80q is there twice", errMalformedJSON, name)
		}
		if o[name], err = p.value(ctx, depth+1); err != nil {
			return nil, err
		}
	}
	return o, p.close()
}

func (p *jsonParser) array(ctx context.Context, depth int) (any, error) {
	list := []any{}
	for p.dec.More() {
		v, err := p.value(ctx, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, p.close()
}

func (p *jsonParser) close() error {
	if _, err := p.dec.Token(); err != nil {
		return fmt.Errorf("%w: %w", errMalformedJSON, err)
	}
	return nil
}

// stringAt returns a string member. Absent and null are the empty string.
func (o object) stringAt(key string) (string, error) {
	switch v := o[key].(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	}
	return "", fmt.Errorf("%w: %s is not a string", errMalformedJSON, key)
}

// intAt returns an integer member of at least 0.
func (o object) intAt(key string) (int64, error) {
	v, ok := o[key].(json.Number)
	if !ok {
		return 0, fmt.Errorf("%w: %s is not a number", errMalformedJSON, key)
	}
	n, err := v.Int64()
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %s is %.40s", errMalformedJSON, key, v)
	}
	return n, nil
}

// objectAt returns an object member. Absent and null are the empty object.
func (o object) objectAt(key string) (object, error) {
	switch v := o[key].(type) {
	case nil:
		return object{}, nil
	case object:
		return v, nil
	}
	return nil, fmt.Errorf("%w: %s is not an object", errMalformedJSON, key)
}

// stringsAt returns a list of strings. Absent and null are the empty
// list.
func (o object) stringsAt(key string) ([]string, error) {
	list, err := o.listAt(key)
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(list))
	for i, v := range list {
		var ok bool
		if texts[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("%w: %s has something other than strings", errMalformedJSON, key)
		}
	}
	return texts, nil
}

// objectsAt returns a list of objects. Absent and null are the empty
// list.
func (o object) objectsAt(key string) ([]object, error) {
	list, err := o.listAt(key)
	if err != nil {
		return nil, err
	}
	objects := make([]object, len(list))
	for i, v := range list {
		var ok bool
		if objects[i], ok = v.(object); !ok {
			return nil, fmt.Errorf("%w: %s has something other than objects", errMalformedJSON, key)
		}
	}
	return objects, nil
}

func (o object) listAt(key string) ([]any, error) {
	switch v := o[key].(type) {
	case nil:
		return nil, nil
	case []any:
		return v, nil
	}
	return nil, fmt.Errorf("%w: %s is not a list", errMalformedJSON, key)
}
