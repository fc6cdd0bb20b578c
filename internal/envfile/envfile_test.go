package envfile

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// values are read as systemd reads them. The cases are those of its own test-env-file.c,
// and of systemd.exec(5).
var values = map[string]string{
	`plain`:                       "plain",
	``:                            "",
	`  around  `:                  "around",
	`in the middle`:               "in the middle",
	`http://host/?a=b#c;d`:        "http://host/?a=b#c;d",
	`"quoted"`:                    "quoted",
	`"  kept  "`:                  "  kept  ",
	`'single "$x" \n'`:            `single "$x" \n`,
	`"a \"b\" \\ \$x \n"`:         `a "b" \ $x \n`,
	`"a" 'b' c`:                   "abc",
	`a "b" 'c'`:                   `a "b" 'c'`,
	`back\\slash \"q`:             `back\slash "q`,
	`ends with a blank\ `:         "ends with a blank ",
	"goes \\\non":                 "goes on",
	"\"two\nlines\"":              "two\nlines",
	"\"one \\\nline\"":            "one line",
	"windows\r":                   "windows",
	`$HOME is not replaced`:       "$HOME is not replaced",
	`images/debian/:distro,b/:x`:  "images/debian/:distro,b/:x",
	`wJalrXUtnFEMI/K7MDENG+bPx==`: "wJalrXUtnFEMI/K7MDENG+bPx==",
}

func TestValues(t *testing.T) {
	for text, want := range values {
		all, err := Parse("f", "BEFORE=1\nNAME="+text+"\n# NAME=2\n\n; comment\n AFTER = 3")
		if err != nil || len(all) != 3 {
			t.Errorf("%s: %v, %v", text, all, err)
			continue
		}
		if all[1].Name != "NAME" || all[1].Value != want || all[1].Line != 2 {
			t.Errorf("%s is %+v, want %q", text, all[1], want)
		}
		if all[2].Name != "AFTER" || all[2].Value != "3" {
			t.Errorf("after %s: %+v", text, all[2])
		}
	}
}

// Each line that means nothing is named.
func TestErrors(t *testing.T) {
	_, err := Parse("x.env", "A=1\nS3_BUCKET\nexport B=2\n\n=x\nC=\"open\nD=4\n")
	for _, says := range []string{
		`x.env:2: "S3_BUCKET" is not NAME=value`,
		`x.env:3: "export B" is not the name of a variable`,
		`x.env:5: "" is not the name`,
		`x.env:6: the quote " is not closed`,
	} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %s", err, says)
		}
	}
	for _, binary := range []string{"A=\xff", "A=\x00"} {
		if _, err := Parse("f", binary); err == nil {
			t.Errorf("%q is taken", binary)
		}
	}
}

// A shell reads what the package reads, where both know the form.
func TestShellAgrees(t *testing.T) {
	for _, text := range []string{`plain`, `"a \"b\" \\ \$x \n"`, `'single "$x" \n'`, "\"two\nlines\""} {
		path := t.TempDir() + "/env"
		if err := os.WriteFile(path, []byte("NAME="+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "sh", "-c", `. "$0"; printf %s "$NAME"`, path).Output()
		if err != nil || string(out) != values[text] {
			t.Errorf("%s is %q to a shell: %v", text, out, err)
		}
	}
}
