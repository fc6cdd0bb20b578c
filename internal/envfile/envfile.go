// Package envfile reads the files that systemd reads for EnvironmentFile=: one NAME=value
// a line. Source: systemd.exec(5).
package envfile

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Variable is one assignment.
type Variable struct {
	Name, Value string
	Line        int // where it begins, from 1
}

// isName finds names that a shell takes, too.
var isName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Parse returns the variables of a file's text, in its order. It reads every value as
// systemd does. It is stricter about the rest: systemd passes over a line that it does
// not understand, and a setting is not there without a word. The error has all such
// lines, each as FILE:LINE.
func Parse(file, text string) ([]Variable, error) {
	if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
		return nil, fmt.Errorf("%s: not a text in UTF-8", file)
	}
	r := &reader{rest: strings.ReplaceAll(text, "\r\n", "\n"), line: 1}
	var all []Variable
	var errs []error
	for r.rest != "" {
		line := r.line
		v, err := r.assignment()
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s:%d: %w", file, line, err))
		case v.Name != "":
			all = append(all, v)
		}
	}
	return all, errors.Join(errs...)
}

// reader is what is still to be read.
type reader struct {
	rest string
	line int
}

// next takes one byte; at the end of the text there is none.
func (r *reader) next() (c byte, ok bool) {
	if r.rest == "" {
		return 0, false
	}
	c, r.rest = r.rest[0], r.rest[1:]
	if c == '\n' {
		r.line++
	}
	return c, true
}

// assignment takes a line, with those that continue it. Without a name it was empty, or a
// comment.
func (r *reader) assignment() (v Variable, err error) {
	v.Line = r.line
	line, _, _ := strings.Cut(r.rest, "\n")
	name, _, found := strings.Cut(line, "=")
	name = strings.TrimSpace(name)
	isComment := strings.HasPrefix(name, "#") || strings.HasPrefix(name, ";")
	if isComment || name == "" && !found {
		r.skip(len(line))
		return v, nil
	}
	if !found {
		r.skip(len(line))
		return v, fmt.Errorf("%q is not NAME=value", strings.TrimSpace(line))
	}
	r.rest = r.rest[strings.Index(line, "=")+1:]
	v.Value, err = r.value()
	if err == nil && !isName.MatchString(name) {
		err = fmt.Errorf("%q is not the name of a variable: write NAME=value, without \"export\"", name)
	}
	v.Name = name
	return v, err
}

// skip passes over a line of this length.
func (r *reader) skip(length int) {
	r.rest = r.rest[length:]
	r.next()
}

// value takes all up to the end of the line. Quotes mean something before the first
// letter outside of them. White space around the value is no part of it.
func (r *reader) value() (string, error) {
	var value []byte
	bare, end := false, 0 // end is behind the last byte that is no white space, or protected
	for {
		c, ok := r.next()
		blank := c == ' ' || c == '\t' || c == '\r'
		switch {
		case !ok || c == '\n':
			return string(value[:end]), nil
		case c == '\\':
			if c, ok = r.next(); ok && c != '\n' {
				value = append(value, c)
				bare, end = true, len(value)
			}
		case !bare && (c == '"' || c == '\''):
			text, err := r.quoted(c)
			if err != nil {
				return "", err
			}
			value = append(value, text...)
			end = len(value)
		case bare || !blank:
			value, bare = append(value, c), true
			if !blank {
				end = len(value)
			}
		}
	}
}

// quoted takes all up to the closing quote.
func (r *reader) quoted(quote byte) (text []byte, err error) {
	for {
		c, ok := r.next()
		if !ok {
			return nil, fmt.Errorf("the quote %c is not closed", quote)
		}
		switch {
		case c == quote:
			return text, nil
		case c == '\\' && quote == '"':
			text = append(text, r.escaped()...)
		default:
			text = append(text, c)
		}
	}
}

// escaped takes what follows a backslash in double quotes, as a shell does.
func (r *reader) escaped() []byte {
	switch c, ok := r.next(); {
	case !ok:
		return []byte{'\\'}
	case c == '\n':
		return nil
	case strings.IndexByte("\"\\`$", c) >= 0:
		return []byte{c}
	default:
		return []byte{'\\', c}
	}
}
