package download

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// interrupted is a directory in which a download of the origin's object was cut off after
// two windows. It was served by another origin that is gone: a request that it answers
// late is not counted.
func interrupted(t *testing.T, o *origin, obj Object) *Downloader {
	t.Helper()
	d := downloader(t, client(t, &origin{t: t, data: o.data, head: o.head, before: denyFrom(2 * wide)}), small())
	if _, err := d.Fetch(t.Context(), "1.tar", obj, nil); !errors.Is(err, ErrDenied) {
		t.Fatalf("%v, want ErrDenied", err)
	}
	for _, f := range []string{"1.tar.part", "1.tar.part.state"} {
		if info, err := os.Lstat(filepath.Join(d.cfg.Dir, f)); err != nil || info.Mode() != 0o600 {
			t.Fatalf("%s: %v, %v", f, info, err)
		}
	}
	d.api = client(t, o)
	return d
}

// A download that was cut off goes on, for less than a window more than was missing; the
// hashes go on too.
func TestResume(t *testing.T) {
	for _, algorithm := range []string{"Sha256", "Crc64nvme", "Crc32c", "Crc32"} {
		t.Run(algorithm, func(t *testing.T) {
			o := &origin{t: t, data: noise(4*wide + 11)}
			o.head = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("X-Amz-Checksum-"+algorithm, s3Checksum(algorithm, o.data))
				return false
			}
			d := interrupted(t, o, notified(len(o.data)))
			first := int64(-1)
			blob, err := d.Fetch(t.Context(), "1.tar", notified(len(o.data)), func(done, _ int64) {
				if first < 0 {
					first = done
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			wantBlob(t, d, "1.tar", blob, o.data)
			wantFiles(t, d, "1.tar")
			// The range at 2*wide was asked for, so the progress saved was at least
			// 2*wide + part - wide.
			if n, most := o.asked(), int64(len(o.data)-wide-part); n > most || first < wide+part {
				t.Errorf("%d bytes asked for again, at most %d; progress began at %d", n, most, first)
			}
		})
	}
}

// Progress that was saved before a cut at the very end needs nothing from the network.
func TestResumeComplete(t *testing.T) {
	o := &origin{t: t, data: noise(2 * wide)}
	d := downloader(t, client(t, o), small())
	id := identity{Bucket: bucket, Key: key, ETag: tag, Size: int64(len(o.data))}
	p, err := beginPartial(filepath.Join(d.cfg.Dir, "1.tar.part"), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.file.Write(o.data); err != nil {
		t.Fatal(err)
	}
	if err := p.advance(id.Size); err != nil {
		t.Fatal(err)
	}
	p.close()
	blob, err := d.Fetch(t.Context(), "1.tar", notified(len(o.data)), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, d, "1.tar", blob, o.data)
	if n := o.asked(); n > 0 {
		t.Errorf("%d bytes asked for", n)
	}
}

// What was left behind counts only if it is whole, of this object and of this file. Else
// all of the object is fetched, and right.
func TestResumeTrustsNothing(t *testing.T) {
	edit := func(path string, change func(text []byte) []byte) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0) // the same inode
		if err != nil {
			return err
		}
		_, err = f.Write(change(text))
		return errors.Join(err, f.Close())
	}
	flip := func(at int) func([]byte) []byte {
		return func(text []byte) []byte {
			text[(at+len(text))%len(text)] ^= 1
			return text
		}
	}
	swap := func(path string, put func(old string) error) error {
		return errors.Join(os.Rename(path, path+".old"), put(path+".old"))
	}
	cases := map[string]func(f files) error{
		"state missing":       func(f files) error { return os.Remove(f.state) },
		"state empty":         func(f files) error { return os.Truncate(f.state, 0) },
		"state torn":          func(f files) error { return os.Truncate(f.state, 200) },
		"state: sum flipped":  func(f files) error { return edit(f.state, flip(0)) },
		"state: text flipped": func(f files) error { return edit(f.state, flip(90)) },
		"state of nothing": func(f files) error {
			return os.WriteFile(f.state, []byte(sumHex([]byte("{}"))+"\n{}\n"),
				0o600)
		},
		"state no JSON": func(f files) error {
			return os.WriteFile(f.state, []byte(sumHex([]byte("x"))+"\nx\n"),
				0o600)
		},
		"state a link": func(f files) error {
			return swap(f.state,
				func(old string) error { return os.Symlink(old, f.state) })
		},
		"state a FIFO": func(f files) error {
			return swap(f.state, func(string) error { return syscall.Mkfifo(f.state, 0o600) })
		},
		"file missing":  func(f files) error { return os.Remove(f.part) },
		"file empty":    func(f files) error { return os.Truncate(f.part, 0) },
		"file cut":      func(f files) error { return os.Truncate(f.part, wide) },
		"file too long": func(f files) error { return os.Truncate(f.part, 5*wide) },
		"file zeroed": func(f files) error {
			return errors.Join(os.Truncate(f.part, 0),
				os.Truncate(f.part, 3*wide))
		},
		"file a link": func(f files) error {
			return swap(f.part,
				func(old string) error { return os.Symlink(old, f.part) })
		},
		"file a FIFO": func(f files) error {
			return swap(f.part,
				func(string) error { return syscall.Mkfifo(f.part, 0o600) })
		},
		"file copied": func(f files) error {
			return swap(f.part,
				func(old string) error { return copyFile(old, f.part) })
		},
		"of another ETag":      rewrite(func(s *state) { s.Object.ETag = "f0" }),
		"of another key":       rewrite(func(s *state) { s.Object.Key += "x" }),
		"of another bucket":    rewrite(func(s *state) { s.Object.Bucket += "x" }),
		"of another version":   rewrite(func(s *state) { s.Object.Pin = "v1" }),
		"of another size":      rewrite(func(s *state) { s.Object.Size++ }),
		"of another checksum":  rewrite(func(s *state) { s.Object.Checksum.Value = "x" }),
		"of another file":      rewrite(func(s *state) { s.Inode++ }),
		"negative offset":      rewrite(func(s *state) { s.Offset = -1 }),
		"offset beyond":        rewrite(func(s *state) { s.Offset = 1 << 40 }),
		"offset a part behind": rewrite(func(s *state) { s.Offset -= part }),
		"hash state garbage":   rewrite(func(s *state) { s.SHA256 = []byte("garbage") }),
		"hash state missing":   rewrite(func(s *state) { s.SHA256 = nil }),
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			o := &origin{t: t, data: noise(4 * wide)}
			d := interrupted(t, o, notified(len(o.data)))
			path := filepath.Join(d.cfg.Dir, "1.tar.part")
			if err := damage(files{path, path + stateSuffix}); err != nil {
				t.Fatal(err)
			}
			blob, err := d.Fetch(t.Context(), "1.tar", notified(len(o.data)), nil)
			if err != nil {
				t.Fatal(err)
			}
			wantBlob(t, d, "1.tar", blob, o.data)
			if n := o.asked(); n != int64(len(o.data)) {
				t.Errorf("%d bytes asked for, want all %d", n, len(o.data))
			}
		})
	}
}

// files are the paths of what an interrupted download leaves.
type files struct{ part, state string }

// rewrite forges a state whose own checksum is right.
func rewrite(change func(*state)) func(f files) error {
	return func(f files) error {
		file, err := os.OpenFile(f.state, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		s, err := readState(file)
		if err != nil {
			return err
		}
		change(&s)
		return errors.Join(file.Truncate(0), s.write(file))
	}
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o600)
}

// An object that was overwritten meanwhile is another one: nothing of the old is used.
func TestResumeAfterOverwrite(t *testing.T) {
	d := interrupted(t, &origin{t: t, data: noise(4 * wide)}, notified(4*wide))
	other := strings.Repeat("f", len(tag))
	overwritten := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("ETag", `"`+other+`"`)
		w.Header().Set(requestID, "1")
		return false
	}
	o := &origin{t: t, data: noise(4*wide + 1)[1:], head: overwritten}
	o.before = func(w http.ResponseWriter, r *http.Request, _ span) bool { return overwritten(w, r) }
	d.api = client(t, o)
	obj := notified(len(o.data))
	obj.ETag = other
	blob, err := d.Fetch(t.Context(), "1.tar", obj, nil)
	if err != nil || blob.ETag != other || blob.SHA256 != sumOf(o.data) {
		t.Fatalf("%+v, %v", blob, err)
	}
	wantFiles(t, d, "1.tar")
	if _, err := d.Fetch(t.Context(), "1.tar", notified(len(o.data)), nil); !errors.Is(err, ErrChanged) {
		t.Errorf("the old one: %v, want ErrChanged", err)
	}
	wantFiles(t, d)
}

// Progress is kept where the object is still to be had and the disk still there to have
// it.
func TestResumable(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "1.tar.part", Err: syscall.ENOSPC}
	reset := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	cases := []struct {
		failure error
		want    bool
	}{
		{ErrShort, true},
		{ErrStalled, true},
		{ErrDenied, true},
		{ErrNotS3, true},
		{ErrNoBucket, true},
		{context.Canceled, true},
		{reset, true},
		{ErrGone, false},
		{ErrChanged, false},
		{ErrTooBig, false},
		{ErrCorrupt, false},
		{full, false},
	}
	for _, c := range cases {
		if got := resumable(fmt.Errorf("stage: %w", c.failure)); got != c.want {
			t.Errorf("%v: %t, want %t", c.failure, got, c.want)
		}
	}
}

// A download that fails before there is any progress leaves nothing, whatever it failed
// of.
func TestNothingToResume(t *testing.T) {
	d := downloader(t, client(t, &origin{t: t, data: noise(4 * wide), before: denyFrom(0)}), small())
	if _, err := d.Fetch(t.Context(), "1.tar", notified(4*wide), nil); !errors.Is(err, ErrDenied) {
		t.Errorf("%v, want ErrDenied", err)
	}
	wantFiles(t, d)
}

const childEnv = "DOWNLOAD_TEST_CHILD" // "endpoint directory" for fetchAsChild

// fetchAsChild is the process that TestResumeAfterKill kills.
func fetchAsChild(arg string) error {
	endpoint, dir, _ := strings.Cut(arg, " ")
	api, err := clientOf(context.Background(), endpoint)
	if err != nil {
		return err
	}
	d, err := New(api, Config{Dir: dir, Part: part, Connections: conns})
	if err != nil {
		return err
	}
	_, err = d.Fetch(context.Background(), "1.tar", notified(killSize), nil)
	return err
}

const killSize = 8 * wide

// A process killed at any request leaves a file that another process goes on with:
// together they ask for less than a window more than the object has.
func TestResumeAfterKill(t *testing.T) {
	for _, at := range []int{1, 2 * conns, 2*conns + 1, 11, 20, 27, 8 * 2 * conns} {
		t.Run(fmt.Sprintf("request %d", at), func(t *testing.T) {
			o, next := &origin{t: t, data: noise(killSize)}, &origin{t: t, data: noise(killSize)}
			child := make(chan *os.Process, 1)
			var seen atomic.Int64
			var kill sync.Once
			o.before = func(_ http.ResponseWriter, r *http.Request, _ span) bool {
				if seen.Add(1) < int64(at) {
					return false
				}
				kill.Do(func() {
					if err := (<-child).Kill(); err != nil {
						t.Error(err)
					}
				})
				<-r.Context().Done() // until the kernel has closed its sockets
				return true
			}
			_, url := clientAndURL(t, o)
			d := downloader(t, client(t, next), small())
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+url+" "+d.cfg.Dir)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			child <- cmd.Process
			err := cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child ended by itself: %v", err)
			}
			blob, err := d.Fetch(t.Context(), "1.tar", notified(killSize), nil)
			if err != nil {
				t.Fatal(err)
			}
			wantBlob(t, d, "1.tar", blob, next.data)
			wantFiles(t, d, "1.tar")
			asked := o.asked()
			again := next.asked()
			t.Logf("killed after asking for %d of %d bytes; then %d were asked for", asked, killSize, again)
			if twice := asked + again - killSize; twice > wide {
				t.Errorf("%d bytes were asked for twice, a window has %d", twice, wide)
			}
		})
	}
}
