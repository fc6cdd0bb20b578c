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

// object is a JSON object. Its keys are case-sensitive, as the specifications of images
// have them; encoding/json's structs are not, and take the last of two equal keys, so
// that two readers may see two images.
type object map[string]any

var errDocument = errors.New("malformed JSON")

// parseDocument reads one JSON value strictly: UTF-8, no key twice, nothing behind it,
// bounded in depth and number of values. The error is errDocument, or the cause of ctx.
func parseDocument(ctx context.Context, data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: not UTF-8", errDocument)
	}
	p := &parser{dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	v, err := p.value(ctx, 0)
	if err != nil {
		return nil, err
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: data behind the document", errDocument)
	}
	return v, nil
}

type parser struct {
	dec    *json.Decoder
	values int
}

func (p *parser) value(ctx context.Context, depth int) (any, error) {
	if p.values++; p.values > maxValues || depth > maxDepth {
		return nil, fmt.Errorf("%w: more than %d values or %d levels", errDocument, maxValues, maxDepth)
	}
	if p.values%1024 == 0 && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	token, err := p.dec.Token()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDocument, err)
	}
	switch token {
	case json.Delim('{'):
		return p.object(ctx, depth)
	case json.Delim('['):
		return p.array(ctx, depth)
	}
	return token, nil
}

func (p *parser) object(ctx context.Context, depth int) (any, error) {
	o := object{}
	for p.dec.More() {
		token, err := p.dec.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errDocument, err)
		}
		name, ok := token.(string)
		if _, twice := o[name]; !ok || twice {
			return nil, fmt.Errorf("%w: the key %.80q is there twice", errDocument, name)
		}
		if o[name], err = p.value(ctx, depth+1); err != nil {
			return nil, err
		}
	}
	return o, p.close()
}

func (p *parser) array(ctx context.Context, depth int) (any, error) {
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

func (p *parser) close() error {
	if _, err := p.dec.Token(); err != nil {
		return fmt.Errorf("%w: %w", errDocument, err)
	}
	return nil
}

// text is a member that is a string; absent and null are empty.
func (o object) text(key string) (string, error) {
	switch v := o[key].(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	}
	return "", fmt.Errorf("%w: %s is no string", errDocument, key)
}

// number is a member that is an integer.
func (o object) number(key string) (int64, error) {
	v, ok := o[key].(json.Number)
	if !ok {
		return 0, fmt.Errorf("%w: %s is no number", errDocument, key)
	}
	n, err := v.Int64()
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %s is %.40s", errDocument, key, v)
	}
	return n, nil
}

// child is a member that is an object; absent and null are empty.
func (o object) child(key string) (object, error) {
	switch v := o[key].(type) {
	case nil:
		return object{}, nil
	case object:
		return v, nil
	}
	return nil, fmt.Errorf("%w: %s is no object", errDocument, key)
}

// texts is a member that is a list of strings; absent and null are empty.
func (o object) texts(key string) ([]string, error) {
	list, err := o.list(key)
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(list))
	for i, v := range list {
		var ok bool
		if texts[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("%w: %s has something other than strings", errDocument, key)
		}
	}
	return texts, nil
}

// objects is a member that is a list of objects; absent and null are empty.
func (o object) objects(key string) ([]object, error) {
	list, err := o.list(key)
	if err != nil {
		return nil, err
	}
	objects := make([]object, len(list))
	for i, v := range list {
		var ok bool
		if objects[i], ok = v.(object); !ok {
			return nil, fmt.Errorf("%w: %s has something other than objects", errDocument, key)
		}
	}
	return objects, nil
}

func (o object) list(key string) ([]any, error) {
	switch v := o[key].(type) {
	case nil:
		return nil, nil
	case []any:
		return v, nil
	}
	return nil, fmt.Errorf("%w: %s is no list", errDocument, key)
}
