package extract

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/test/images"
)

// However many trees are written and read at once, and whatever threads the runtime makes
// meanwhile: goroutines elsewhere keep all they had, and afterwards no thread is left
// that has less. That includes the main thread, which cannot end.
func TestNoThreadIsLeft(t *testing.T) {
	needRoot(t)
	before := ownStatus(t)
	// hashed elsewhere
	b := images.Tar(images.Root(images.Entry{Name: "var/x", Body: strings.Repeat("x", 3*bufferSize)})...)
	var trees sync.WaitGroup
	var stop atomic.Bool
	for range 6 {
		trees.Go(func() {
			for range 15 {
				dir := t.TempDir()
				root, err := os.Open(dir)
				check(t, err)
				compare(t, extractBytes(t, b, archive.Strict, root), root)
				check(t, root.Close())
			}
		})
	}
	var others sync.WaitGroup
	others.Go(func() {
		for !stop.Load() {
			threadsHave(t, before, 20)
		}
	})
	trees.Wait()
	stop.Store(true)
	others.Wait()
	threadsHave(t, before, 50)
	threads := func() int { return entries(t, "/proc/self/task") }
	if !eventually(func() bool { return countThreads(t, before) == threads() }) {
		t.Errorf("%d of %d threads have what they had: %+v", countThreads(t, before), threads(), before)
	}
}

func entries(t testing.TB, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	check(t, err)
	return len(list)
}

// threadsHave holds n threads at once, for which the runtime has to make new ones, and
// looks at each.
func threadsHave(t testing.TB, want status, n int) {
	var here, done sync.WaitGroup
	here.Add(n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			here.Done()
			here.Wait()
			if s := ownStatus(t); s != want {
				t.Errorf("a goroutine elsewhere is on a thread with %+v", s)
			}
		})
	}
	done.Wait()
}

// Work that would come to the main thread goes to another, and the main thread keeps what
// it had.
func TestMainThreadIsSpared(t *testing.T) {
	before, times := ownStatus(t), 0
	onMainThread(t, func() {
		for range 200 {
			var done sync.WaitGroup
			done.Go(func() { // whichever goroutine only starts is as likely to be here as this one
				if unix.Gettid() == unix.Getpid() {
					times++
				}
			})
			done.Wait()
			check(t, withOnlyCapabilities(0, 0)(func() error {
				if unix.Gettid() == unix.Getpid() {
					t.Error("confined on the main thread")
				}
				return nil
			}))
		}
	})
	if times == 0 {
		t.Error("no goroutine came to the main thread: nothing is shown")
	}
	t.Logf("%d of 200 goroutines came to the main thread", times)
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", os.Getpid()))
	check(t, err)
	if s := parseStatus(text); s != before {
		t.Errorf("the main thread has %+v", s)
	}
}

// onMainThread calls do in a goroutine that is on the main thread when do begins: all
// other threads are held until it is found. Every other goroutine is woken by the network
// poller, as that is where the main thread may be.
func onMainThread(t *testing.T, do func()) {
	t.Helper()
	var found atomic.Bool
	var held sync.WaitGroup
	release := make(chan struct{})
	r, w, err := os.Pipe()
	check(t, err)
	defer func() { check(t, errors.Join(r.Close(), w.Close())) }()
	for n := 0; n < 2000 && !found.Load(); n++ {
		here := make(chan struct{})
		held.Go(func() {
			if n%2 == 1 {
				_, err := r.Read(make([]byte, 1))
				check(t, err)
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			main := unix.Gettid() == unix.Getpid()
			if main {
				found.Store(true)
			}
			close(here)
			if !main {
				<-release
				return
			}
			runtime.UnlockOSThread()
			do()
			runtime.LockOSThread()
		})
		if n%2 == 1 {
			runtime.Gosched() // so that it waits already
			_, err := w.Write([]byte{0})
			check(t, err)
		}
		<-here
	}
	close(release)
	held.Wait()
	if !found.Load() {
		t.Fatal("no goroutine came to the main thread")
	}
}
