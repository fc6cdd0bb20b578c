package extract

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive/fstree"
)

// selinuxLabel is an attribute of every new file under a kernel with SELinux. It does not
// belong to the image.
const selinuxLabel = "security.selinux"

// listXattrs returns a file's attributes sorted by name. Those of trusted.* are shown to
// administrators only.
func listXattrs(fd int) ([]fstree.Xattr, error) {
	size, err := unix.Flistxattr(fd, nil)
	if size == 0 || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, size)
	if size, err = unix.Flistxattr(fd, buf); err != nil {
		return nil, err
	}
	var list []fstree.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:size]), "\x00"), "\x00") {
		if name == "" || name == selinuxLabel {
			continue
		}
		value, err := readXattr(fd, name)
		if err != nil {
			return nil, err
		}
		list = append(list, fstree.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(list, func(a, b fstree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func readXattr(fd int, name string) ([]byte, error) {
	size, err := unix.Fgetxattr(fd, name, nil)
	if err != nil || size == 0 {
		return nil, err
	}
	value := make([]byte, size)
	size, err = unix.Fgetxattr(fd, name, value)
	if err != nil {
		return nil, err
	}
	return value[:size], nil
}
