package devmapper

import (
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestNames(t *testing.T) {
	c := Config{Name: "images", UUID: "u-1"}
	for text, want := range map[string]ID{"CIM-u-1-0": 0, "CIM-u-1-16777215": maxID} {
		if id, ok := c.thinID(text); !ok || id != want || c.thinUUID(id) != text {
			t.Errorf("%s: %d %t", text, id, ok)
		}
	}
	for _, text := range []string{
		"CIM-u-1-pool", "CIM-u-1-16777216", "CIM-u-1--1", "CIM-u-1-01", "CIM-u-1-+1",
		"CIM-u-11-1", "CIM-u-1", "LVM-u-1-1", "",
	} {
		if id, ok := c.thinID(text); ok {
			t.Errorf("%s taken for device %d", text, id)
		}
	}
	for name, ours := range map[string]bool{
		"cim-images-pool": true, "cim-images-image-5": true, "cim-images-snapshot-16777215": true,
		"cim-images-image-": false, "cim-images-image-05": false, "cim-images-2-image-5": false,
		"cim-images-other-5": false, "images-image-5": false,
	} {
		if c.ownsName(name) != ours {
			t.Errorf("ownsName(%q) is %t", name, !ours)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	good := Config{
		Name: "im.a-g_1", UUID: "0b5e1c1a-8d5e-4f4e-9a55-0d2f3c5a7b11", Data: "/d", Metadata: "/m",
		BlockSize: 128 << 10,
	}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Config){
		"no name": func(c *Config) { c.Name = "" }, "slash": func(c *Config) { c.Name = "a/b" },
		"hidden": func(c *Config) { c.Name = ".a" },
		"space":  func(c *Config) { c.Name = "a b" }, "long": func(c *Config) { c.Name = strings.Repeat("a", 65) },
		"no uuid": func(c *Config) { c.UUID = "" }, "nil uuid": func(c *Config) { c.UUID = uuid.Nil.String() },
		"newline":    func(c *Config) { c.UUID += "\n" },
		"upper case": func(c *Config) { c.UUID = strings.ToUpper(c.UUID) },
		"no data":    func(c *Config) { c.Data = "" }, "same": func(c *Config) { c.Data = "/m" },
		"small": func(c *Config) { c.BlockSize = 4096 }, "odd": func(c *Config) { c.BlockSize = 100 << 10 },
		"large": func(c *Config) { c.BlockSize = 2 << 30 },
	} {
		c := good
		spoil(&c)
		if c.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
