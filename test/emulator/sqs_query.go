package emulator

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// The query protocol is what older clients speak, the AWS CLI of Debian 12 among them.
// The structures of the operations say with the tag `query` what a list or map is called
// there: it is flattened, "Name.1", "Name.2". A map's tag has the names of key and value
// behind it. Scalars are called what they are called in Go.

// decodeForm fills the structure that in points to.
func decodeForm(form url.Values, in any) error {
	return decodeStruct(form, "", reflect.ValueOf(in).Elem())
}

func decodeStruct(form url.Values, prefix string, v reflect.Value) error {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous {
			if err := decodeStruct(form, prefix, v.Field(i)); err != nil {
				return err
			}
			continue
		}
		if err := decodeValue(form, prefix+queryName(field), v.Field(i), field.Tag.Get("query")); err != nil {
			return err
		}
	}
	return nil
}

// queryName is what a field is called in a form or an answer.
func queryName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("query"), ",")
	if name == "" {
		return f.Name
	}
	return name
}

// keyNames are the names of a map's key and value, from its tag.
func keyNames(tag string) (key, value string) {
	parts := strings.Split(tag, ",")
	if len(parts) == 3 {
		return parts[1], parts[2]
	}
	return "Name", "Value"
}

func decodeValue(form url.Values, name string, v reflect.Value, tag string) error {
	switch v.Kind() {
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			raw, err := base64.StdEncoding.DecodeString(form.Get(name))
			v.SetBytes(raw)
			return err
		}
		return decodeList(form, name, v)
	case reflect.Map:
		return decodeMap(form, name, v, tag)
	case reflect.Struct:
		return decodeStruct(form, name+".", v)
	}
	if !form.Has(name) {
		return nil
	}
	return decodeScalar(form.Get(name), name, v)
}

func decodeScalar(text, name string, v reflect.Value) error {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		v.SetInt(int64(n))
	default:
		return fmt.Errorf("%s: cannot be decoded", name)
	}
	return nil
}

// has reports whether the form has a value of that name, or values below it.
func has(form url.Values, name string) bool {
	for k := range form {
		if k == name || strings.HasPrefix(k, name+".") {
			return true
		}
	}
	return false
}

func decodeList(form url.Values, name string, v reflect.Value) error {
	for n := 1; has(form, name+"."+strconv.Itoa(n)); n++ {
		item := reflect.New(v.Type().Elem()).Elem()
		if err := decodeValue(form, name+"."+strconv.Itoa(n), item, ""); err != nil {
			return err
		}
		v.Set(reflect.Append(v, item))
	}
	return nil
}

func decodeMap(form url.Values, name string, v reflect.Value, tag string) error {
	key, value := keyNames(tag)
	for n := 1; has(form, name+"."+strconv.Itoa(n)); n++ {
		at := name + "." + strconv.Itoa(n) + "."
		item := reflect.New(v.Type().Elem()).Elem()
		if err := decodeValue(form, at+value, item, ""); err != nil {
			return err
		}
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		v.SetMapIndex(reflect.ValueOf(form.Get(at+key)), item)
	}
	return nil
}

// encodeResult writes the answer of an operation.
func encodeResult(op string, out any, id string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0"?><%sResponse xmlns="http://queue.amazonaws.com/doc/%s/">`, op, sqsVersion)
	fmt.Fprintf(&b, "<%sResult>", op)
	encodeStruct(&b, reflect.Indirect(reflect.ValueOf(out)))
	fmt.Fprintf(&b, "</%sResult><ResponseMetadata>", op)
	element(&b, "RequestId", id)
	fmt.Fprintf(&b, "</ResponseMetadata></%sResponse>", op)
	return b.Bytes()
}

func encodeError(fault, code, message, id string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0"?><ErrorResponse xmlns="http://queue.amazonaws.com/doc/%s/"><Error>`,
		sqsVersion)
	element(&b, "Type", fault)
	element(&b, "Code", code)
	element(&b, "Message", message)
	b.WriteString("</Error>")
	element(&b, "RequestId", id)
	b.WriteString("</ErrorResponse>")
	return b.Bytes()
}

func element(b *bytes.Buffer, name, text string) {
	fmt.Fprintf(b, "<%s>", name)
	_ = xml.EscapeText(b, []byte(text)) // a buffer takes everything
	fmt.Fprintf(b, "</%s>", name)
}

func encodeStruct(b *bytes.Buffer, v reflect.Value) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		encodeValue(b, queryName(field), v.Field(i), field.Tag.Get("query"))
	}
}

// encodeValue writes a value; one that is empty is left out, as in the JSON protocol.
func encodeValue(b *bytes.Buffer, name string, v reflect.Value, tag string) {
	switch v.Kind() {
	case reflect.Slice:
		if raw, ok := v.Interface().([]byte); ok {
			if len(raw) > 0 {
				element(b, name, base64.StdEncoding.EncodeToString(raw))
			}
			return
		}
		for i := range v.Len() {
			encodeValue(b, name, v.Index(i), "")
		}
	case reflect.Map:
		encodeMap(b, name, v, tag)
	case reflect.Struct:
		fmt.Fprintf(b, "<%s>", name)
		encodeStruct(b, v)
		fmt.Fprintf(b, "</%s>", name)
	default:
		if !v.IsZero() || v.Kind() == reflect.Bool {
			element(b, name, fmt.Sprint(v.Interface()))
		}
	}
}

func encodeMap(b *bytes.Buffer, name string, v reflect.Value, tag string) {
	key, value := keyNames(tag)
	keys := v.MapKeys()
	slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
	for _, k := range keys {
		fmt.Fprintf(b, "<%s>", name)
		element(b, key, k.String())
		encodeValue(b, value, v.MapIndex(k), "")
		fmt.Fprintf(b, "</%s>", name)
	}
}
