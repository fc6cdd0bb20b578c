package localstack

import (
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var composePath = filepath.Join(root, "localstack", "docker-compose.yml")

// project is what the tests look at in a compose file.
type project struct {
	Services map[string]service
	Volumes  map[string]any
}

type service struct {
	Image       string
	Build       any
	Profiles    []string
	Command     []string
	Environment map[string]string
	Ports       []string
	Volumes     []string
	Privileged  bool
	Restart     string
	StopGrace   string                                `yaml:"stop_grace_period"`
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	Healthcheck struct{ Test []string }
}

// variable is one that compose puts in from the environment, with its default.
var variable = regexp.MustCompile(`\$\{[A-Z_0-9]+:?-([^}]*)\}`)

// compose is the project as it is with no variable set.
func compose(t *testing.T) project {
	t.Helper()
	var p project
	decodeYAML(t, variable.ReplaceAllString(read(t, composePath), "$1"), &p)
	if len(p.Services) < 6 {
		t.Fatalf("%d services only: this test does not see them", len(p.Services))
	}
	return p
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func decodeYAML(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// mounted is the path, in the repository, of what a service sees at a path.
func (s service) mounted(t *testing.T, path string) string {
	t.Helper()
	for _, volume := range s.Volumes {
		if source, rest, _ := strings.Cut(volume, ":"); strings.HasPrefix(source, ".") {
			target := strings.TrimSuffix(rest, ":ro")
			if inside, err := filepath.Rel(target, path); err == nil && filepath.IsLocal(inside) {
				return filepath.Join(root, "localstack", source, inside)
			}
		}
	}
	t.Fatalf("nothing is mounted at %s", path)
	return ""
}

// Every variable has a default: the file works with none of them set.
func TestComposeVariables(t *testing.T) {
	left := variable.ReplaceAllString(read(t, composePath), "")
	if rest := regexp.MustCompile(`\$[{A-Za-z_][^ ]*`).FindAllString(left, -1); rest != nil {
		t.Errorf("variables without a default: %q", rest)
	}
}

// What is mounted exists: Docker would make an empty directory in its place.
func TestComposeMounts(t *testing.T) {
	p := compose(t)
	for name, s := range p.Services {
		for _, volume := range s.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			_, declared := p.Volumes[source]
			switch path := filepath.Join(root, "localstack", source); {
			case declared || source == "/dev":
			case !strings.HasPrefix(source, ".") || !fileExists(path):
				t.Errorf("%s mounts %s, which is neither a file of the repository nor a volume", name, source)
			case !strings.HasSuffix(volume, ":ro"):
				t.Errorf("%s could write to %s", name, source)
			}
		}
	}
}

// Nothing is published beyond this machine, and no two services want one port.
func TestComposePorts(t *testing.T) {
	taken := map[string]string{}
	for name, s := range compose(t).Services {
		for _, port := range s.Ports {
			parts := strings.Split(port, ":")
			if len(parts) != 3 || parts[0] != "127.0.0.1" {
				t.Errorf("%s publishes %s: not on 127.0.0.1 alone", name, port)
				continue
			}
			if other, ok := taken[parts[1]]; ok {
				t.Errorf("%s and %s both publish %s", name, other, parts[1])
			}
			taken[parts[1]] = name
		}
	}
}

// An image that is not built here has the tag of one release.
func TestComposeImages(t *testing.T) {
	pinned := regexp.MustCompile(`^[a-z0-9-]+/[a-z0-9-]+:v?\d+\.\d+\.\d+$`)
	for name, s := range compose(t).Services {
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("the image of %s is %q: no release", name, s.Image)
		}
	}
	if text := read(t, composePath); !strings.Contains(text, "${EMULATOR_IMAGE:-localstack/localstack:4.14.0}") {
		t.Error("EMULATOR_IMAGE does not default to the last LocalStack that needs no token")
	}
}

// Addresses inside the project name its services.
func TestComposeAddresses(t *testing.T) {
	p := compose(t)
	for _, name := range []string{"SQS_QUEUE_URL", "SQS_DEAD_LETTER_URL", "AWS_ENDPOINT_URL"} {
		value := p.Services["consumer"].Environment[name]
		if u, err := url.Parse(value); err != nil || u.Host != "emulator:4566" {
			t.Errorf("%s is %s: not the emulator's", name, value)
		}
	}
	m := regexp.MustCompile(`OTLP_ENDPOINT=http://([a-z]+):4318`).FindStringSubmatch(read(t, composePath))
	if m == nil || p.Services[m[1]].Image == "" {
		t.Errorf("the head of the file sends traces to %q", m)
	}
}

func TestComposeDaemon(t *testing.T) {
	daemon, pool := compose(t).Services["consumer"], compose(t).Services["pool"]
	for name, want := range map[string]string{
		"emulator": "service_healthy", // the hook has succeeded
		"pool":     "service_completed_successfully",
	} {
		if got := daemon.DependsOn[name].Condition; got != want {
			t.Errorf("the daemon waits for %s of %s, want %s", got, name, want)
		}
	}
	for name, s := range map[string]service{"consumer": daemon, "pool": pool} {
		if !s.Privileged || !slices.Contains(s.Volumes, "/dev:/dev") {
			t.Errorf("%s cannot use the host's device-mapper", name)
		}
	}
	// SHUTDOWN_GRACE and two minutes; and a daemon that crashed comes back.
	if daemon.StopGrace != "150s" || daemon.Restart != "unless-stopped" {
		t.Errorf("stop_grace_period %s, restart %s", daemon.StopGrace, daemon.Restart)
	}
	if !regexp.MustCompile(`\n# +sudo modprobe .*\bdm_thin_pool\b`).MatchString(read(t, composePath)) {
		t.Error("the head of the file does not say which kernel modules the host must have")
	}
}

// The hook finds setup.sh where the emulator runs it, as it does in the repository.
func TestComposeHook(t *testing.T) {
	emulator := compose(t).Services["emulator"]
	for in, want := range map[string]string{
		"/etc/localstack/init/ready.d/10-setup.sh": hook, "/etc/localstack/setup.sh": setup,
	} {
		info, err := os.Stat(want)
		if got := emulator.mounted(t, in); got != want || err != nil || info.Mode()&0o111 != 0o111 {
			t.Errorf("%s is %s, want %s, executable (%v)", in, got, want, err)
		}
	}
	if got := emulator.Environment["SERVICES"]; got != "s3,sqs" {
		t.Errorf("LocalStack loads %q", got)
	}
	if emulator.Environment["EAGER_SERVICE_LOADING"] != "1" {
		t.Error("LocalStack may load its services after the hook")
	}
}

// The emulator is healthy once the hook has done all of its work, and not before.
func TestHealthCheck(t *testing.T) {
	t.Parallel()
	emulator := compose(t).Services["emulator"]
	probe := emulator.Healthcheck.Test
	if len(probe) < 2 || probe[0] != "CMD" {
		t.Fatalf("the health check is %q", probe)
	}
	w := newWorld(t, "us-east-1")
	healthy := func(when string, want bool) {
		t.Helper()
		calls := w.requests.Load()
		got := execute(t, w.env(), emulator.mounted(t, probe[1]), probe[2:]...)
		if (got.code == 0) != want || w.requests.Load() == calls {
			t.Errorf("%s: exit code %d after %d requests, healthy should be %t\n%s", when, got.code,
				w.requests.Load()-calls, want, got.errs)
		}
	}
	healthy("before the hook", false)
	if w.emu.Calls("CreateBucket")+w.emu.Calls("CreateQueue") > 0 {
		t.Error("the health check makes something")
	}
	succeed(t, w.env(), hook)
	healthy("after the hook", true)
	made := w.notifications()
	w.send(http.MethodPut, "/container-images?notification", "", "<NotificationConfiguration/>")
	healthy("before the hook's last step", false)
	w.send(http.MethodPut, "/container-images?notification", "", made)
	w.sqs("DeleteQueue", "images", "")
	healthy("without the queue", false)
}

// Compose itself, where it is installed, has the last word. It needs no daemon for that.
func TestComposeConfig(t *testing.T) {
	if err := exec.CommandContext(t.Context(), "docker", "compose", "version").Run(); err != nil {
		t.Skip("docker compose is not installed (Docker's package docker-compose-plugin); " +
			"the other tests read the file themselves")
	}
	succeed(t, nil, "docker", "compose", "-f", composePath, "--profile", "observe", "config", "--quiet")
}
