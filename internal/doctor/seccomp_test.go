package doctor

import (
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// underFilter is set in a child of this test's.
const underFilter = "DOCTOR_TEST_UNDER_FILTER"

// The child prints its finding, from its first thread: /proc/self is about that one.
func init() {
	if os.Getenv(underFilter) == "" {
		return
	}
	runtime.LockOSThread()
	if err := refuseOpenat2(); err != nil {
		_, _ = os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(openat2())
	os.Exit(0)
}

// refuseOpenat2 is the filter of RestrictSUIDSGID=, as far as openat2 is concerned.
func refuseOpenat2() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_OPENAT2},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// The unit has RestrictSUIDSGID=yes: openat2 answers ENOSYS, and the finding names it.
func TestOpenat2IsFiltered(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), underFilter+"=1")
	out, err := cmd.CombinedOutput()
	var f Finding
	if err == nil {
		err = json.Unmarshal(out, &f)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	expect(t, []Finding{f}, "openat2", Fail, "function not implemented: a seccomp filter refuses it",
		"RestrictSUIDSGID")
	if f := openat2(); f.Result != OK {
		t.Errorf("without the filter: %+v", f)
	}
}
