package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"imagemanager.internal/test/disks"
	tarballs "imagemanager.internal/test/images"
)

// diagnosis is what `consumer doctor --json` prints.
type diagnosis struct{ Checks []finding }

type finding struct{ Check, Result, Text, Remedy string }

// of returns the findings with this result.
func (d diagnosis) of(result string) []finding {
	return slices.DeleteFunc(slices.Clone(d.Checks), func(f finding) bool { return f.Result != result })
}

// diagnose runs `consumer doctor`: its exit code says whether a check failed. Before the
// program may stand another one that runs it.
func (h *host) diagnose(env []string, before ...string) (d diagnosis) {
	h.T.Helper()
	line := slices.Concat(before, []string{h.Program(), "doctor", "--json"})
	cmd := exec.CommandContext(h.T.Context(), line[0], line[1:]...)
	cmd.Env = append(h.Environment(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		h.Check(err)
	}
	if err := json.Unmarshal(out, &d); err != nil {
		h.Check(fmt.Errorf("%w: %s%s", err, out, stderr.String()))
	}
	if failed := len(d.of("fail")) > 0; failed != (err != nil) {
		h.Errorf("%v, although the failures are %+v", err, d.of("fail"))
	}
	return d
}

// expect compares the finding of a check: its result, and words of text and remedy.
func (h *host) expect(d diagnosis, check, result, text, remedy string) {
	h.T.Helper()
	i := slices.IndexFunc(d.Checks, func(f finding) bool { return f.Check == check })
	if i < 0 {
		h.Check(fmt.Errorf("no finding about %s in %+v", check, d))
	}
	if f := d.Checks[i]; f.Result != result || !strings.Contains(f.Text, text) || !strings.Contains(f.Remedy, remedy) {
		h.Errorf("%+v\nwant %s, %q, and the remedy %q", f, result, text, remedy)
	}
}

// allowS3 gives the queue the policy that AWS asks for.
func (h *host) allowS3() {
	h.T.Helper()
	_, err := h.Cloud.SQS.SetQueueAttributes(h.T.Context(), &sqs.SetQueueAttributesInput{
		QueueUrl: &h.Cloud.Queue, Attributes: map[string]string{"Policy": fmt.Sprintf(
			`{"Statement":[{"Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},"Action":"sqs:SendMessage",`+
				`"Resource":"*","Condition":{"ArnEquals":{"aws:SourceArn":"arn:aws:s3:::%s"}}}]}`, h.Cloud.Name)},
	})
	h.Check(err)
}

// Beside a daemon at work nothing fails, and what the machine has is seen. Without the
// daemon nobody changes the pool, so neither does doctor.
func TestDoctorBesideTheDaemon(t *testing.T) {
	h := newHost(t)
	h.allowS3()
	h.Start()
	h.makeFirst()
	h.WaitDrained()
	d := h.diagnose([]string{"LISTEN_ADDR=" + h.Address()})
	for _, f := range d.of("fail") {
		t.Errorf("%+v", f)
	}
	for check, text := range map[string]string{
		"kernel": "Linux ", "device-mapper": "thin-pool", "ext4": "without a mount point", "loop": "there are",
		"openat2": "works", "capabilities": "has all", "mke2fs": "version 1.", "thin_check": "version ",
		"thin_repair": "version ", "state-dir": h.State, "disk": "are free", "database": "1 images",
		"pool": "read-write, and zeroes", "pool-space": "of metadata are free", "pool-files": "of the state directory",
		"listen-address": fmt.Sprintf("process %d, answers", h.PID()), "sample-read": "images/a.tar",
		"queue-policy": "S3 may send", "clock": "within a minute",
	} {
		h.expect(d, check, "ok", text, "")
	}
	h.Stop()
	h.Look()

	before, err := h.pool().Status()
	h.Check(err)
	h.expect(h.diagnose(nil), "pool", "ok", "read-write", "")
	after, err := h.pool().Status()
	h.Check(err)
	if after != before {
		t.Errorf("the pool was %+v, and is %+v", before, after)
	}
}

// Faults of a machine are named, each with what to do. The program runs in surroundings
// that lack something.
func TestDoctorNamesWhatTheMachineLacks(t *testing.T) {
	h := newHost(t)
	h.allowS3()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	h.Check(err)
	defer func() { h.Check(l.Close()) }()
	inMounts := func(mount string) []string {
		return []string{"unshare", "--mount", "sh", "-c", mount + ` && exec "$@"`, "sh"}
	}
	without := func(capability string) []string {
		return []string{"setpriv", "--inh-caps=-" + capability, "--bounding-set=-" + capability}
	}
	for _, tc := range []struct {
		name         string
		env, before  []string
		check        string
		result       string
		text, remedy string
	}{
		{
			"no programs",
			[]string{"PATH=/usr/bin:/bin"},
			inMounts("mount -t tmpfs none /usr/sbin"),
			"thin_check", "fail", "there is no program thin_check", "apt install thin-provisioning-tools",
		},
		{
			"a broken program", nil, inMounts("mount --bind /dev/null /usr/sbin/mke2fs"),
			"mke2fs", "fail", "does not run", "apt install --reinstall e2fsprogs",
		},
		{
			"no device-mapper", nil, inMounts("mount --bind /dev/null /dev/mapper/control"),
			"device-mapper", "fail", "makes no thin pools", "modprobe -a dm_mod dm_thin_pool",
		},
		{
			"no loop devices", nil, inMounts("mount -t tmpfs none /dev"), "loop", "warn", "/dev/loop-control",
			"modprobe loop",
		},
		{
			"a missing capability", nil, without("mknod"),
			"capabilities", "fail", "root lacks CAP_MKNOD", "CapabilityBoundingSet=",
		},
		{"no right to mount", nil, without("sys_admin"), "ext4", "fail", "fsopen fails", "CAP_SYS_ADMIN"},
		{
			"not root", nil,
			[]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"},
			"capabilities", "warn", "not root", "run this as root",
		},
		{
			"the address is taken",
			[]string{"LISTEN_ADDR=" + l.Addr().String()},
			nil,
			"listen-address", "fail", "taken by another program", "LISTEN_ADDR",
		},
		{
			"metadata is low",
			[]string{"POOL_MIN_FREE_METADATA=90"},
			nil,
			"pool-space", "fail", "POOL_MIN_FREE_METADATA", "consumer pool grow --metadata-size",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			same := *h.Host
			same.T = t
			h := &host{Host: &same}
			h.expect(h.diagnose(tc.env, tc.before...), tc.check, tc.result, tc.text, tc.remedy)
		})
	}
}

// A state directory on a full file system, and one that others may look into.
func TestDoctorOfAFullDisk(t *testing.T) {
	h := newSmallDiskHost(t, 200)
	h.allowS3()
	h.Check(os.Chmod(h.State, 0o755))
	fillDisk(t, filepath.Join(h.State, "hog"))
	d := h.diagnose(nil)
	h.expect(d, "disk", "fail", "takes nothing below 64MiB", "make room under "+h.State)
	h.expect(d, "pool-files", "fail", "takes nothing below 64MiB", "make room under "+filepath.Join(h.State, "pool"))
	h.expect(d, "state-dir", "warn", "mode 0755", "chmod 700 "+h.State)
	h.expect(d, "database", "ok", "sound", "")
	h.Check(os.Remove(filepath.Join(h.State, "hog")))
}

// A pool that is detached stays so; one without its file, and one without its database,
// are not taken for a new machine's.
func TestDoctorOfAPoolAway(t *testing.T) {
	h := newHost(t)
	h.Check(h.Store.Close()) // or its file is in use
	h.Consumer("pool", "detach")
	h.expect(h.diagnose(nil), "pool", "warn", "is detached", "consumer run")
	if out := disks.Run(t, "dmsetup", "ls"); strings.Contains(out, poolName(t)) {
		t.Errorf("the pool was attached: %s", out)
	}
	data := filepath.Join(h.State, "pool", "data.img")
	h.Check(os.Rename(data, data+".away"))
	h.expect(h.diagnose(nil), "pool", "fail", data+" of pool", "bring it back")
	h.Check(os.Rename(data+".away", data))

	h.Check(os.Rename(h.Database(), h.Database()+".away"))
	h.expect(h.diagnose(nil), "database", "fail", "holds a pool", "consumer recover")
	h.Check(os.Rename(h.Database()+".away", h.Database()))
	h.OpenStore()
}

// The daemon itself warns at its start of a prefix that no message is about, and of a
// bucket that does not exist.
func TestStartWarnsOfSettings(t *testing.T) {
	h := newHost(t)
	h.Check(h.Cloud.Purge(t.Context()))
	for setting, warns := range map[string][]string{
		"S3_PREFIX=img":      {`outside of S3_PREFIX \"img\"`, "set the notification's prefix"},
		"S3_BUCKET=nowhere2": {"there is no bucket nowhere2", "correct S3_BUCKET"},
	} {
		h.Start(setting)
		h.WaitFor("a warning of "+setting, func() bool {
			return slices.ContainsFunc(strings.Split(string(h.NewestLog()), "\n"), func(line string) bool {
				return strings.Contains(line, `"level":"warn"`) && strings.Contains(line, warns[0]) &&
					strings.Contains(line, `"remedy":`) && strings.Contains(line, warns[1])
			})
		})
		h.Host.Stop()
	}
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	h.Start()
	h.WaitActive("images/a.tar")
	h.Stop()
}
