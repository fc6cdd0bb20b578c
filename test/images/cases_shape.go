package images

// otherShapeCases are directories of tools that hold an image or a root file system in
// another shape than the accepted ones. The refusal says what they are.
func otherShapeCases() []Case {
	skopeoDir := []Entry{
		{Name: "version", Body: "Directory Transport Version: 1.1\n"},
		{Name: "manifest.json", Body: `{"schemaVersion":2}`},
	}
	return []Case{
		refused("directory of skopeo", "bad_manifest", Tar(skopeoDir...)).says("`skopeo copy dir:DIR"),
		refused("manifest in place of docker's list", "bad_manifest", Tar(skopeoDir[1:]...)).says("not a list"),
		refused("runtime bundle", "layout", Tar(Bundle(Entry{Name: "config.json", Body: "{}"})...)).
			says("an OCI runtime bundle"),
		refused("LXD image", "layout",
			Tar(Bundle(Entry{Name: "metadata.yaml", Body: "x"}, Entry{Name: "templates/"})...)).says("an LXD image"),
		refused("bundle in a directory", "layout", Tar(below(Bundle(), "./b/")...)).says(`"b"; in it is a bundle`),
		refused("layout in a directory", "layout", Tar(below(two().OCI(), "dir/")...)).
			says(`"dir"; in it is an OCI image layout; pack what is in the directory`),
		refused("docker's archive in a directory", "layout", Tar(below(two().Docker(), "dir/")...)).
			says("in it is an archive of docker save"),
		refused("something in a directory", "layout", Tar(Entry{Name: "d/"}, Entry{Name: "d/x", Body: "x"})).
			says("missing: etc, usr, var"),
		refused("image in a directory beside something else", "layout",
			Tar(append(below(two().OCI(), "dir/"), Entry{Name: "x", Body: "x"})...)).says("missing: etc, usr, var"),
		refused("bundle without directories", "layout", Tar(Entry{Name: "rootfs/"}, Entry{Name: "rootfs/etc/"})).
			says("put the directories etc, usr, var below rootfs/"),
	}
}
