package localstack

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every shell script of the repository passes shellcheck.
func TestShellcheck(t *testing.T) {
	checker := tool(t, "shellcheck", "shellcheck")
	listed := succeed(t, nil, tool(t, "git", "git"), "-c", "safe.directory=*", "-C", root, "ls-files", "-z", "--cached",
		"--others", "--exclude-standard", "--", "*.sh", ".ci/*")
	var scripts []string
	for _, name := range strings.Split(strings.TrimRight(listed.out, "\x00"), "\x00") {
		if path := filepath.Join(root, name); fileExists(path) { // not deleted meanwhile
			scripts = append(scripts, path)
		}
	}
	if len(scripts) < 3 {
		t.Fatalf("found %q only: this test does not look where the scripts are", scripts)
	}
	if got := execute(t, nil, checker, scripts...); got.code != 0 {
		t.Error(got.out + got.errs)
	}
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func compose(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "localstack", "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCompose(t *testing.T) {
	text := compose(t)
	for why, pattern := range map[string]string{
		"later tags want a token":                 `\n    image: localstack/localstack:4\.14\.0\n`,
		"no service but these two":                `\n      SERVICES: s3,sqs\n`,
		"loaded before the hook runs":             `\n      EAGER_SERVICE_LOADING: "1"`,
		"the hook":                                `\n      - \./init/ready\.d:/etc/localstack/init/ready\.d:ro\n`,
		"setup.sh two directories above it":       `\n      - \./setup\.sh:/etc/localstack/setup\.sh:ro\n`,
		"the daemon waits for the hook":           `\n      localstack: \{ condition: service_healthy \}`,
		"and for the pool":                        `\n      pool: \{ condition: service_completed_successfully \}\n`,
		"device-mapper needs it":                  `\n  privileged: true`,
		"the host's devices":                      `\n    - /dev:/dev\n`,
		"SHUTDOWN_GRACE and two minutes":          `\n    stop_grace_period: 150s`,
		"a daemon that crashed comes back":        `\n    restart: unless-stopped`,
		"which kernel modules the host must have": `\n# +sudo modprobe .*\bdm_thin_pool\b`,
	} {
		if !regexp.MustCompile(pattern).MatchString(text) {
			t.Errorf("docker-compose.yml does not match %q: %s", pattern, why)
		}
	}
	ports := regexp.MustCompile(`(?m)^ +- "?([0-9.:]*[0-9]:[0-9]+)"?`).FindAllStringSubmatch(text, -1)
	if len(ports) != 2 {
		t.Errorf("%d published ports, want LocalStack's and the daemon's", len(ports))
	}
	for _, p := range ports {
		if !strings.HasPrefix(p[1], "127.0.0.1:") {
			t.Errorf("port %s is published beyond this machine", p[1])
		}
	}
	if info, err := os.Stat(hook); err != nil || info.Mode()&0o111 != 0o111 {
		t.Errorf("LocalStack runs hooks that are executable; %s: %v", hook, err)
	}
}

// Compose itself, where it is installed, has the last word. It needs no daemon for that.
func TestComposeConfig(t *testing.T) {
	if err := exec.CommandContext(t.Context(), "docker", "compose", "version").Run(); err != nil {
		t.Skip("docker compose is not installed (Docker's package docker-compose-plugin); " +
			"TestCompose looks at the text")
	}
	succeed(t, nil, "docker", "compose", "-f", filepath.Join(root, "localstack", "docker-compose.yml"), "config",
		"--quiet")
}

// The health check waits for the hook, and does not take its failure for readiness.
func TestHealthCheck(t *testing.T) {
	tool(t, "curl", "curl")
	m := regexp.MustCompile(`test: \["CMD-SHELL", "(.*)"\]`).FindStringSubmatch(compose(t))
	if m == nil {
		t.Fatal("no health check")
	}
	check := strings.NewReplacer(`\"`, `"`, "$$", "$").Replace(m[1])
	for name, c := range map[string]struct {
		status  int
		body    string
		healthy bool
	}{
		"hook runs": {
			200,
			`{"completed": false, "scripts": [{"name": "10-setup.sh", "stage": "READY", "state": "RUNNING"}]}`, false,
		},
		"hook failed": {
			200,
			`{"completed": true, "scripts": [{"name": "10-setup.sh", "stage": "READY", "state": "ERROR"}]}`, false,
		},
		"hook succeeded": {
			200,
			`{"completed": true, "scripts": [{"name": "10-setup.sh", "stage": "READY", "state": "SUCCESSFUL"}]}`, true,
		},
		"compact":         {200, `{"completed":true,"scripts":[{"state":"SUCCESSFUL"}]}`, true},
		"not yet serving": {503, `{"completed": true}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/_localstack/init/ready" {
					t.Errorf("asks for %s", r.URL.Path)
				}
				w.WriteHeader(c.status)
				if _, err := w.Write([]byte(c.body)); err != nil {
					t.Error(err)
				}
			}))
			defer srv.Close()
			local := strings.Replace(check, "http://localhost:4566", srv.URL, 1)
			if local == check {
				t.Fatalf("%q does not ask LocalStack", check)
			}
			if got := execute(t, nil, "sh", "-c", local); (got.code == 0) != c.healthy {
				t.Errorf("exit code %d, healthy should be %t", got.code, c.healthy)
			}
		})
	}
}

// The image needs what the Dockerfile copies, and no more of the repository than
// dockerignore lets through.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "localstack", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	ignore, err := os.ReadFile(filepath.Join(root, "localstack", "Dockerfile.dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	copied := regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllStringSubmatch(string(text), -1)
	if len(copied) < 3 {
		t.Fatalf("copies %q only", copied)
	}
	for _, line := range copied {
		for _, name := range strings.Fields(line[1]) {
			if !fileExists(filepath.Join(root, name)) || !strings.Contains(string(ignore), "\n!"+name+"\n") {
				t.Errorf("%s is not in the repository, or not let through", name)
			}
		}
	}
	release := regexp.MustCompile(`(?m)^go (\d+\.\d+)`)
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if v := release.FindSubmatch(mod); v == nil || !strings.Contains(string(text), "FROM golang:"+string(v[1])+"-") {
		t.Errorf("the Dockerfile does not build with the Go release of go.mod: %q", v)
	}
}
