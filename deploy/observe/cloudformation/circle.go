package cloudformation

import (
	"maps"
	"slices"
	"strings"
)

// circles reports resources that need each other, so that none of them could be made
// first. A bucket that tells a queue, whose policy names the bucket, is the usual one.
func (t *template) circles() {
	done := map[string]bool{}
	for _, name := range sortedKeys(t.resources) {
		t.follow(name, nil, done)
	}
}

// follow goes from a resource to what it needs. The path leads to it.
func (t *template) follow(name string, path []string, done map[string]bool) {
	if i := slices.Index(path, name); i >= 0 {
		t.fault(name, "is needed by itself: %s", strings.Join(append(path[i:], name), ", "))
		return
	}
	if done[name] {
		return
	}
	for _, next := range sortedKeys(t.needs(object(t.resources[name]))) {
		t.follow(next, append(slices.Clone(path), name), done)
	}
	done[name] = true
}

// needs returns the resources that v refers to.
func (t *template) needs(v any) map[string]bool {
	found := map[string]bool{}
	if name, argument, ok := function(v); ok {
		for _, target := range targets(name, argument) {
			resource, _, _ := strings.Cut(target, ".")
			found[resource] = t.resources[resource] != nil
		}
	}
	switch v := v.(type) {
	case map[string]any:
		if d, ok := v["DependsOn"].(string); ok {
			found[d] = t.resources[d] != nil
		}
		for _, part := range v {
			maps.Copy(found, t.needs(part))
		}
	case []any:
		for _, part := range v {
			maps.Copy(found, t.needs(part))
		}
	}
	maps.DeleteFunc(found, func(_ string, isResource bool) bool { return !isResource })
	return found
}

// targets returns what an intrinsic function names, with an attribute after a point.
func targets(name string, argument any) []string {
	text, isText := argument.(string)
	list, _ := argument.([]any)
	switch {
	case name == "Ref" && isText:
		return []string{text}
	case name == "Fn::Sub" && isText:
		var all []string
		for _, m := range substituted.FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		return all
	case name == "Fn::GetAtt" && len(list) == 2:
		resource, _ := list[0].(string)
		attribute, _ := list[1].(string)
		return []string{resource + "." + attribute}
	}
	return nil
}
