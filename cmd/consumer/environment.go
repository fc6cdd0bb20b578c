package main

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"

	"github.com/docker/go-units"
	"github.com/kelseyhightower/envconfig"
)

// mayBeEmpty are the variables with a meaning of their own for an empty value. Any other
// empty variable takes its default: compose files and unit files leave such ones behind.
var mayBeEmpty = map[string]bool{"S3_PREFIX": true, "LISTEN_ADDR": true}

// readEnvironment reads every variable by itself: envconfig stops at the first error. An
// error names the line that the variable is from, if it is from a file.
func readEnvironment(lines map[string]string) config {
	var c config
	all := reflect.ValueOf(&c).Elem()
	for i := range all.NumField() {
		field := all.Type().Field(i)
		name := field.Tag.Get("envconfig")
		if name == "" {
			continue
		}
		value, set := os.LookupEnv(name)
		empty := set && value == "" && !mayBeEmpty[name]
		read, err := readVariable(field)
		if err != nil && !empty {
			c.unread = append(c.unread, notReadable(name, value, lines[name], field))
		}
		if err != nil || empty {
			read = defaultOf(field)
		}
		all.Field(i).Set(read)
	}
	return c
}

// readVariable returns envconfig's value for the field.
func readVariable(field reflect.StructField) (reflect.Value, error) {
	one := reflect.New(reflect.StructOf([]reflect.StructField{field}))
	err := envconfig.Process("", one.Interface())
	return one.Elem().Field(0), err
}

// defaultOf returns the field's default: its value under the name of no variable.
func defaultOf(field reflect.StructField) reflect.Value {
	field.Tag = reflect.StructTag(fmt.Sprintf(`envconfig:"=" default:%q`, field.Tag.Get("default")))
	value, err := readVariable(field)
	if err != nil { // a bad default; a test reads them all
		return reflect.Zero(field.Type)
	}
	return value
}

// notReadable says how the variable is to be written.
func notReadable(name, value, line string, field reflect.StructField) error {
	how := map[string]string{
		"Duration": "a duration, such as 90s, 5m or 1h30m",
		"size":     "a size, such as 20GiB, 100GB or a number of bytes",
		"int":      "a whole number, such as 4",
		"float64":  "a number of percent without the sign, such as 12.5",
		"bool":     "true or false",
		"":         "prefix:policy, several with commas between them: images/debian/:distro,images/own/:trusted",
	}[field.Type.Name()]
	return fmt.Errorf("%s%s %q cannot be read: write %s", line, name, value, how)
}

// size is a number of bytes, written like 20GiB, 100GB or 4096.
type size int64

// Decode implements envconfig.Decoder. GiB and the like are powers of 1024, GB and the
// like of 1000.
func (s *size) Decode(text string) error {
	parse := units.FromHumanSize
	if strings.HasSuffix(strings.ToLower(text), "ib") {
		parse = units.RAMInBytes
	}
	n, err := parse(text)
	if err != nil || n < 0 || n == math.MaxInt64 { // more than fits in 64 bits comes out as one of the latter
		return fmt.Errorf("%q is not a size: write 20GiB, 100GB or a number of bytes", text)
	}
	*s = size(n)
	return nil
}

// Set, String and Type implement pflag.Value.
func (s *size) Set(text string) error { return s.Decode(text) }
func (*size) Type() string            { return "size" }
func (s *size) String() string {
	if *s == 0 {
		return "0" // what pflag takes for no default
	}
	return units.BytesSize(float64(*s))
}
