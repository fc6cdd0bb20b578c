package cloudformation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// template is a template under check.
type template struct {
	schema     *Schema
	faults     []string
	parameters map[string]any
	conditions map[string]any
	resources  map[string]any
}

// Check returns what is wrong with a template in JSON, one line a fault. An error is
// returned if it is not JSON at all.
func (s *Schema) Check(text []byte) ([]string, error) {
	var sections map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber() // tells an integer from a number
	if err := decoder.Decode(&sections); err != nil {
		return nil, err
	}
	t := &template{
		schema:     s,
		parameters: object(sections["Parameters"]),
		conditions: object(sections["Conditions"]),
		resources:  object(sections["Resources"]),
	}
	t.known("the template", sections, "AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Mappings",
		"Conditions", "Resources", "Outputs")
	if len(t.resources) == 0 {
		t.fault("the template", "has no resources")
	}
	for _, name := range sortedKeys(t.resources) {
		t.resource(name, object(t.resources[name]))
	}
	t.references("the template", sections)
	t.circles()
	return t.faults, nil
}

func (t *template) fault(at, format string, args ...any) {
	t.faults = append(t.faults, at+": "+fmt.Sprintf(format, args...))
}

// known reports the keys that are not among names.
func (t *template) known(at string, m map[string]any, names ...string) {
	for _, key := range sortedKeys(m) {
		if !slices.Contains(names, key) {
			t.fault(at, "unknown key %s", key)
		}
	}
}

func (t *template) resource(name string, r map[string]any) {
	t.known(name, r, "Type", "Properties", "Condition", "DependsOn", "DeletionPolicy", "UpdateReplacePolicy")
	kind, _ := r["Type"].(string)
	schema, ok := t.schema.Resources[kind]
	if !ok {
		t.fault(name, "unknown type %q", kind)
		return
	}
	if c, ok := r["Condition"].(string); ok && t.conditions[c] == nil {
		t.fault(name, "there is no condition %s", c)
	}
	if d, ok := r["DependsOn"].(string); ok && t.resources[d] == nil {
		t.fault(name, "there is no %s", d)
	}
	t.properties(name, object(r["Properties"]), schema.Properties)
}

func (t *template) properties(at string, values map[string]any, properties Properties) {
	for _, name := range sortedKeys(properties) {
		if _, set := values[name]; properties[name].Required && !set {
			t.fault(at, "%s is missing", name)
		}
	}
	for _, name := range sortedKeys(values) {
		p, ok := properties[name]
		if !ok {
			t.fault(at, "unknown property %s", name)
			continue
		}
		t.value(at+"."+name, values[name], p.Type)
	}
}

// value checks that v is of the type. What a function computes is not known, except that
// Fn::If gives one of its branches.
func (t *template) value(at string, v any, want Type) {
	if name, argument, ok := function(v); ok {
		if branches, isList := argument.([]any); name == "Fn::If" && isList && len(branches) == 3 {
			t.value(at, branches[1], want)
			t.value(at, branches[2], want)
		}
		return
	}
	switch want.Type {
	case "array":
		t.array(at, v, *want.Element)
	case "ref":
		t.object(at, v, t.schema.Definitions[want.Reference.ID])
	case "tag":
		text := Property{Required: true, Type: Type{Type: "string"}}
		t.object(at, v, Properties{"Key": text, "Value": text})
	default:
		t.scalar(at, v, want)
	}
}

func (t *template) scalar(at string, v any, want Type) {
	text, isText := v.(string)
	switch {
	case !scalar(v, want):
		t.fault(at, "want %s, have %v", want.Type, v)
	case isText && len(want.Allowed) > 0 && !slices.Contains(want.Allowed, v):
		t.fault(at, "want one of %v, have %s", want.Allowed, text)
	}
}

func (t *template) array(at string, v any, element Type) {
	list, ok := v.([]any)
	if !ok {
		t.fault(at, "want array, have %v", v)
	}
	for i, e := range list {
		t.value(fmt.Sprintf("%s[%d]", at, i), e, element)
	}
}

func (t *template) object(at string, v any, properties Properties) {
	values, ok := v.(map[string]any)
	if !ok {
		t.fault(at, "want object, have %v", v)
		return
	}
	t.properties(at, values, properties)
}

// scalar reports whether v is of a type without parts. A map, json, or a union may be
// anything: no template here has a map with a fixed type of values.
func scalar(v any, want Type) bool {
	number, isNumber := v.(json.Number)
	switch want.Type {
	case "string":
		_, ok := v.(string)
		return ok
	case "boolean":
		_, ok := v.(bool)
		return ok
	case "integer":
		_, err := number.Int64()
		return isNumber && err == nil
	case "number":
		return isNumber
	}
	return true
}

// function returns the name and the argument of an intrinsic function.
func function(v any) (string, any, bool) {
	m, ok := v.(map[string]any)
	if !ok || len(m) != 1 {
		return "", nil, false
	}
	for name, argument := range m {
		return name, argument, name == "Ref" || strings.HasPrefix(name, "Fn::")
	}
	return "", nil, false
}

// references checks, in all of v, that what functions refer to exists.
func (t *template) references(at string, v any) {
	if name, argument, ok := function(v); ok {
		t.reference(at, name, argument)
	}
	switch v := v.(type) {
	case map[string]any:
		for _, key := range sortedKeys(v) {
			t.references(strings.TrimPrefix(at+"."+key, "the template."), v[key])
		}
	case []any:
		for i, e := range v {
			t.references(fmt.Sprintf("%s[%d]", at, i), e)
		}
	}
}

// substituted finds what Fn::Sub replaces; ${!Name} stands for itself.
var substituted = regexp.MustCompile(`\$\{([^!}][^}]*)\}`)

func (t *template) reference(at, name string, argument any) {
	named := targets(name, argument)
	for _, target := range named {
		t.target(at, target, name != "Ref")
	}
	_, isText := argument.(string)
	switch list, _ := argument.([]any); {
	case named != nil || name == "Fn::Sub" && isText: // of which there may be none to name
	case name == "Fn::If" && len(list) == 3:
		if c, _ := list[0].(string); t.conditions[c] == nil {
			t.fault(at, "there is no condition %v", list[0])
		}
	case name != "Fn::Equals" && name != "Fn::Not":
		t.fault(at, "%s in a form that this check does not know", name)
	}
}

// target checks that a name stands for a parameter or a resource, or with attributes for
// an attribute of a resource.
func (t *template) target(at, name string, attributes bool) {
	resource, attribute, dotted := strings.Cut(name, ".")
	r, isResource := t.resources[resource]
	_, isParameter := t.parameters[name]
	switch kind, _ := object(r)["Type"].(string); {
	case dotted && attributes && isResource:
		if !slices.Contains(t.schema.Resources[kind].Attributes, attribute) {
			t.fault(at, "%s has no attribute %s", kind, attribute)
		}
	case isParameter, isResource && !dotted, strings.HasPrefix(name, "AWS::"):
	default:
		t.fault(at, "there is no %s", name)
	}
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
