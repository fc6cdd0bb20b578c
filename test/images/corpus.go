package images

import (
	"bufio"
	"bytes"
	"embed"
	"fmt"
	"strings"
)

// Their names and bytes are as their authors left them.
//
//go:embed testdata
var testdata embed.FS

// accepted stands in the table's column of reasons for an archive that is accepted.
const accepted = "ok"

// Corpus returns the archives that other projects test their extractors with. The
// outcomes are those of testdata/corpus.txt: under Strict and Distro, and with the rule
// on the layout left aside, as nearly none of them is a root file system.
func Corpus() ([]Case, error) {
	table, err := testdata.ReadFile("testdata/corpus.txt")
	if err != nil {
		return nil, err
	}
	var all []Case
	for lines := bufio.NewScanner(bytes.NewReader(table)); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			continue
		case len(fields) != 3:
			return nil, fmt.Errorf("corpus.txt: %q", line)
		case fields[2] == "-":
			fields[2] = fields[1]
		}
		b, err := testdata.ReadFile("testdata/" + fields[0])
		if err != nil {
			return nil, err
		}
		all = append(all, Case{
			Group: "corpus", Name: fields[0], Bytes: b,
			Strict: strings.TrimPrefix(fields[1], accepted), Distro: strings.TrimPrefix(fields[2], accepted),
		})
	}
	return all, nil
}
