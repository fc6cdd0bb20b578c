package page

import "strings"

// Elsewhere is a block that a guest of the tests cannot run.
type Elsewhere struct {
	Page    string // where the block is
	Begins  string // how its text begins; no other block of the page begins so
	Why     string
	Instead string // what the tests run in its place, for the sake of the blocks behind it
}

// Reasons that several blocks have.
const (
	noDocker  = "there is no Docker; test/localstack reads what it starts"
	noNetwork = "guests have no network"
	noSystemd = "there is no systemd; test/deb starts the unit"
	noPackage = "nothing can be installed in a guest; test/deb does it"
	ownGuest  = "it boots guests of its own; the test that runs the pages is such a run"
)

const deployment = "docs/deployment.md"

// runDaemon does what the unit does.
const runDaemon = "consumer run 2>daemon.log &\n" +
	`until grep -q '"message":"running"' daemon.log; do sleep 0.1; done`

// OutOfReach lists the blocks that no test runs as they stand. Tests still parse them,
// and look up every `consumer` command in them.
var OutOfReach = []Elsewhere{
	{Page: "README.md", Begins: "make demo", Why: "it boots guests of its own; .ci/run runs both"},
	{Page: "README.md", Begins: "make deb\n", Why: noPackage},
	{Page: "README.md", Begins: "localstack/setup.sh", Why: "it is for AWS; test/localstack runs the script"},
	{"README.md", "consumer doctor\nsystemctl", noSystemd, runDaemon},
	{"README.md", "mmdebstrap", noNetwork, "cp small.tar debian.tar"},

	{Page: "docs/getting-started.md", Begins: "make build-test", Why: "it builds what the tests need"},
	{"docs/getting-started.md", "mmdebstrap", noNetwork, "cp small.tar debian.tar"},
	{Page: "docs/getting-started.md", Begins: "modprobe", Why: "a guest has loaded its modules"},
	{Page: "docs/getting-started.md", Begins: "bin/uml-run -t", Why: "a guest in a guest; TestTerminal does it"},
	{Page: "docs/getting-started.md", Begins: "sudo modprobe", Why: noDocker},

	{Page: deployment, Begins: "make deb", Why: noPackage},
	{Page: deployment, Begins: "make build install", Why: "nothing can be installed in a guest"},
	{Page: deployment, Begins: "modprobe", Why: noDocker},
	{
		Page: deployment, Begins: "aws cloudformation deploy",
		Why: "the emulator has no CloudFormation; deploy/observe checks the template",
	},
	{
		deployment, "localstack/setup.sh", "it is for AWS; test/localstack runs the script",
		`printf 'S3_BUCKET=%s\nSQS_QUEUE_URL=%s\n' "$S3_BUCKET" "$SQS_QUEUE_URL" >consumer.env`,
	},
	{Page: deployment, Begins: "install -m 640", Why: "a guest cannot write to /etc"},
	{deployment, "systemctl start", noSystemd, runDaemon},
	{Page: deployment, Begins: "apt install ./", Why: noPackage},
	{Page: deployment, Begins: "apt install --allow-downgrades", Why: "there is no older version yet"},
	{Page: deployment, Begins: "apt remove", Why: noPackage},
	{deployment, "systemctl disable", noSystemd, "kill $!\nwait $!"},
	{Page: deployment, Begins: "rm /usr/local", Why: "nothing is installed in a guest"},

	{"docs/check.md", "skopeo copy", noNetwork, "cp small.tar image.tar"},
	{Page: "docs/operating.md", Begins: "export OTEL_EXPORTER_OTLP_ENDPOINT", Why: noDocker},
	{
		Page: "docs/operating.md", Begins: "aws cloudformation deploy",
		Why: "the emulator has no CloudFormation; deploy/observe checks the template",
	},

	{Page: "docs/development.md", Begins: "make build-test\nexport", Why: ownGuest},
	{Page: "docs/development.md", Begins: "bin/uml-test -v -alone", Why: ownGuest},
	{Page: "docs/development.md", Begins: "CONFORMANCE_ENDPOINT_URL", Why: "it is for another S3 and SQS"},
	{Page: "CONTRIBUTING.md", Begins: "make setup-test", Why: "it installs packages; .ci/run runs these targets"},
	{Page: "CONTRIBUTING.md", Begins: "go test -race", Why: "a guest has no build cache; test-host runs the test"},
	{Page: "CONTRIBUTING.md", Begins: "make build-test\nexport", Why: ownGuest},
	{Page: "CONTRIBUTING.md", Begins: "go mod edit", Why: "it changes every file of the repository"},
}

// matches reports whether the entry is about a block.
func (e Elsewhere) matches(b Block) bool {
	return b.Page == e.Page && strings.HasPrefix(b.Text, e.Begins)
}

// FindElsewhere returns the entry about a block, if there is one.
func FindElsewhere(b Block) (Elsewhere, bool) {
	for _, e := range OutOfReach {
		if e.matches(b) {
			return e, true
		}
	}
	return Elsewhere{}, false
}
