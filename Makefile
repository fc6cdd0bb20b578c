# `make` prints what there is. `make demo` and `make test` work on a bare Debian or Ubuntu with Go, as root.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GOLANGCI_VERSION := v2.15.0
DEADCODE_VERSION := v0.38.0
NFPM_VERSION := v2.45.2
CACHE := $(CURDIR)/.cache
GOLANGCI := $(CACHE)/golangci-lint-$(GOLANGCI_VERSION)
DEADCODE := $(CACHE)/deadcode-$(DEADCODE_VERSION)
NFPM := $(CACHE)/nfpm-$(NFPM_VERSION)
IMAGE ?= $(CACHE)/debian-minbase.tar
UML := $(CURDIR)/bin/uml-run
N ?= 500
MINUTES ?= 15
ROUNDS ?= 5
OTHERS ?= 12
HUGE ?= 10737418240
# What the tests that need a real thin pool are run with; see docs/development.md.
export CIM_UML_CACHE ?= $(CACHE)/guest-kernels
DM := CIM_REQUIRE_DM=1 CONSUMER_BIN=$(CURDIR)/bin/consumer-failpoint
# udevd and lvm2 for a guest, unpacked.
GUEST_UDEV := $(CACHE)/guest-udev
# Prometheus and promtool. They are not installed: the package would start a daemon.
PROMETHEUS := $(CACHE)/prometheus
# A Debian with systemd and what the package depends on.
DEB_TREE := $(CACHE)/debian-systemd.tar
# The module of dashboards and alerts. ./... does not reach into it.
OBSERVE := deploy/observe
# Programs that write images and are Go modules, with their versions.
WRITERS := test/tools
# The module that compares the program with its peers, and has those that are Go modules.
BENCH := test/bench
# A guest has one CPU. If the machine moves its processes between several, it is a third as fast.
ONE_CPU = taskset -c $$(taskset -cp $$$$ | sed 's/.*: //; s/[-,].*//')
# What runs a program that attaches loop devices and mounts: nothing, or a guest.
AS_ROOT := $(shell test "$$(id -u)" = 0 && test -e /dev/loop-control || echo $(UML) --)
# How the program of a release is built.
RELEASE := -trimpath -buildmode=pie
# Packages whose tests need a real thin pool, or root in a kernel of their own. Those of
# test/crash bring their kernel down. Without root, the judge's fuzz seeds are written in a guest.
KERNEL := -alone ./test/crash ./test/e2e ./test/powercut ./test/disks ./test/soak ./internal/archive/extract \
	./internal/devmapper/... $(if $(AS_ROOT),./internal/archive)
# Tests that a target of their own gives what they need.
APART := ^TestDebianImages$$|^TestArchivesOfToolsBecomeSnapshots$$|Udevd
# Root runs these on the machine itself (test-host); a guest would take two minutes more.
NATIVE := $(if $(AS_ROOT),,|^TestExtractCases$$|^TestDeviceBytes$$)
# What Debian 12's kernel is asked for too: confinement, detached mounts, and whether it takes
# what the direct engine wrote for its own file system.
OLDEST := -skip 'Udevd|SameTreeAsMounted' \
	-run 'Capabilit|Rights|Nothing|Raised|Confined|Cancel|Privileges|Mount|^TestWrite$$|Afterwards' \
	./internal/archive/... ./internal/devmapper/...
# What the mounted engine is asked for once more: images, a full pool, and a selection of kills.
MOUNTED := -run '^Test(EndToEnd|TenAtOnce|PoolFullInUnpack|Killed)$$' -alone ./test/crash ./test/e2e

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What runs beside a udevd once more; the tests named Udevd run there only.
BESIDE_UDEV := -run 'Udevd|Activ|Detach|Discard|Mount|Busy|Parallel|Open|Grow|Held|WorkWithout|EndToEnd|TenAtOnce|Reboot|Remove$$|RemoveUnder|Reconcile|RebuiltFrom' \
	./internal/devmapper ./test/e2e

.PHONY: setup
setup: ## install the Debian packages that building and running the program takes (root)
	@./test/setup/setup.sh gcc libc6-dev e2fsprogs dmsetup thin-provisioning-tools

.PHONY: setup-test
setup-test: setup ## install what tests and demo take besides (root)
	@./test/setup/setup.sh user-mode-linux mmdebstrap debian-archive-keyring patchelf awscli shellcheck yamllint curl git \
		skopeo umoci libarchive-tools squashfs-tools bzip2 xz-utils zstd

.PHONY: observe
observe: ## make dashboards, alerts and runbooks again (RUNBOOKS=https://... for the address in alerts)
	cd $(OBSERVE) && go run . $(if $(RUNBOOKS),-runbooks "$(RUNBOOKS)")

.PHONY: docs
docs: ## make docs/cli.md, docs/configuration.md, man pages, golden files and the files of deploy/aws again
	go test -count=1 -run '^Test(Page|Golden)' ./cmd/consumer ./deploy/aws ./internal/pipeline/... -update

.PHONY: pictures
pictures: build-test $(PROMETHEUS) ## record a live run in user-mode-linux, and draw it into docs/dashboard.svg
	@mkdir -p bin/recording
	go test -c -o bin/e2e.test ./test/e2e
	cd test/e2e && $(DM) CIM_UML_WRITABLE=$(CURDIR)/bin/recording CIM_RECORD=$(CURDIR)/bin/recording/run.json \
		$(UML) -- $(CURDIR)/bin/e2e.test -test.run '^TestDashboardOfALiveRun$$'
	cd $(OBSERVE) && go run . -recording $(CURDIR)/bin/recording/run.json

$(PROMETHEUS): | setup-test
	@rm -rf $@.part && mkdir -p $@.part
	mmdebstrap --quiet --variant=extract --include=prometheus --aptopt='Acquire::Check-Valid-Until "false"' bookworm $@.part/root
	@mv $@.part/root/usr/bin/prom* $@.part && rm -rf $@.part/root && mv $@.part $@

.PHONY: build
build: setup ## build bin/consumer
	@mkdir -p bin
	go build -o bin/consumer ./cmd/consumer

# A tag vX.Y.Z names a release. Before the first, the version is the commit's date and name.
VERSION ?= $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-/+/' | grep . \
	|| git log -1 --format=0.0~%cd.%h --date=format:%Y%m%d 2>/dev/null | grep . || echo 0.0~unknown)
PACKAGE_ROOT := bin/package/root
PACKAGE_DOC := usr/share/doc/container-image-manager
ARCH := $(shell dpkg --print-architecture 2>/dev/null)
DEB ?= bin/container-image-manager_$(VERSION)_$(ARCH).deb
CONSUMER ?= bin/consumer
PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: install
install: ## install program, unit, settings, manual and completion (PREFIX=/usr/local, DESTDIR= for a package's tree)
	@test -f $(CONSUMER) || { echo "$(CONSUMER) is missing: make build" >&2; exit 1; }
	install -D -m 755 $(CONSUMER) $(DESTDIR)$(PREFIX)/bin/consumer
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)/etc/consumer
	sed 's|/usr/bin/consumer|$(PREFIX)/bin/consumer|' deploy/systemd/consumer.service \
		>$(DESTDIR)$(PREFIX)/lib/systemd/system/consumer.service
	test -e $(DESTDIR)/etc/consumer/consumer.env || \
		install -m 640 deploy/systemd/consumer.env $(DESTDIR)/etc/consumer/consumer.env
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 docs/man/*.1
	@for shell in $(COMPLETION); do \
		install -d $$(dirname $(DESTDIR)$(PREFIX)/share/$${shell#*:}); \
		$(CONSUMER) completion $${shell%%:*} >$(DESTDIR)$(PREFIX)/share/$${shell#*:}; \
	done

# The shells, and where Debian has the completion of each.
COMPLETION := bash:bash-completion/completions/consumer zsh:zsh/vendor-completions/_consumer \
	fish:fish/vendor_completions.d/consumer.fish

.PHONY: deb
deb: setup $(NFPM) ## make the Debian package in bin/ (VERSION=1.2.3)
	@mkdir -p bin/package && rm -rf $(PACKAGE_ROOT)
	go build $(RELEASE) -ldflags='-s -w -X github.com/prometheus/common/version.Version=$(VERSION)' \
		-o bin/package/consumer ./cmd/consumer
	@$(MAKE) --no-print-directory -s install CONSUMER=bin/package/consumer DESTDIR=$(PACKAGE_ROOT) PREFIX=/usr
	@gzip -9n $(PACKAGE_ROOT)/usr/share/man/man1/*.1
	@install -D -m 644 deploy/deb/copyright $(PACKAGE_ROOT)/$(PACKAGE_DOC)/copyright
	@install -D -m 644 deploy/deb/lintian-overrides $(PACKAGE_ROOT)/usr/share/lintian/overrides/container-image-manager
	@deploy/deb/changelog.sh $(VERSION) | gzip -9n >$(PACKAGE_ROOT)/$(PACKAGE_DOC)/changelog.gz
	@gzip -9n <CHANGELOG.md >$(PACKAGE_ROOT)/$(PACKAGE_DOC)/CHANGELOG.md.gz
	@chmod -R u=rwX,go=rX $(PACKAGE_ROOT)/usr
	@VERSION=$(VERSION) ARCH=$(ARCH) LIBC="$$(deploy/deb/libc.sh bin/package/consumer)" \
		SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		$(NFPM) package --config deploy/deb/nfpm.yaml --packager deb --target $(DEB)

$(NFPM):
	@mkdir -p $(CACHE)
	GOBIN=$(CACHE) go install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	@mv $(CACHE)/nfpm $@

.PHONY: build-test
build-test: setup-test build ## build what tests and demo take besides
	go build -o bin/emulator ./test/emulator/serve
	go build -o bin/demo ./test/demo
	go build -tags failpoint -o bin/consumer-failpoint ./cmd/consumer
	CGO_ENABLED=0 go build -o bin/ ./test/uml/uml-run ./test/uml/uml-test
	$(CC) -O2 -Wall -Wextra -Werror -shared -fPIC -o bin/uml-xstate.so test/uml/xstate.c

.PHONY: demo
demo: check-image build-test $(filter $(CACHE)/%,$(IMAGE)) ## upload a real Debian image and watch it become a snapshot (IMAGE=path/to.tar for another)
	@$(UML) -- $(CURDIR)/bin/demo --consumer $(CURDIR)/bin/consumer "$$(realpath "$(IMAGE)")"

.PHONY: check-image
check-image:
	@case "$(IMAGE)" in $(CACHE)/*) ;; *) test -f "$(IMAGE)" && test -r "$(IMAGE)" || \
		{ echo "IMAGE=$(IMAGE): no such file. Give the path of a tar archive, or leave IMAGE out for a Debian image." >&2; exit 2; };; esac

$(CACHE)/debian-python3-gcc.tar: MORE := --include=python3,gcc
$(CACHE)/debian-python3-gcc-git.tar: MORE := --include=python3,gcc,git
$(CACHE)/debian-minbase.tar $(CACHE)/debian-python3-gcc.tar $(CACHE)/debian-python3-gcc-git.tar: | setup-test
	@mkdir -p $(CACHE)
	mmdebstrap --quiet --format=tar --variant=minbase $(MORE) --aptopt='Acquire::Check-Valid-Until "false"' bookworm $@.part
	@mv $@.part $@

.PHONY: test
test: build-test ## all tests: unit, conformance, end to end, user-mode-linux
	@$(MAKE) --no-print-directory -j2 -Oline test-host test-uml
	@echo "all tests passed"

.PHONY: test-host
test-host: setup-test $(PROMETHEUS) ## the tests that any machine can run, with the race detector
	CIM_REQUIRE_TOOLS=1 go test -race ./...
	go test -run '^TestMemory$$' ./internal/archive ./internal/archive/direct # the race detector multiplies memory
	cd $(OBSERVE) && go test ./...
	cd $(BENCH) && go test ./...

.PHONY: test-uml
test-uml: build-test $(PROMETHEUS) ## the tests that need a real thin pool, in user-mode-linux (natively where root has dm-thin)
	$(DM) bin/uml-test -skip '$(APART)$(NATIVE)' $(KERNEL)
	$(DM) CIM_UML_KERNEL=6.1 bin/uml-test $(OLDEST)
	$(DM) UNPACK_ENGINE=mounted bin/uml-test $(MOUNTED)
	@$(MAKE) --no-print-directory test-udev

.PHONY: test-udev
test-udev: build-test $(GUEST_UDEV) ## device, pipeline and removal tests beside a real udevd with Debian's rules
	$(DM) CIM_REQUIRE_UDEV=1 CIM_UML_UDEV=$(GUEST_UDEV) bin/uml-test $(BESIDE_UDEV)

$(GUEST_UDEV): | setup-test
	@mkdir -p $(CACHE)
	@rm -rf $@.part
	mmdebstrap --quiet --variant=extract --include=udev,lvm2,dmsetup --aptopt='Acquire::Check-Valid-Until "false"' bookworm $@.part
	@mv $@.part $@

.PHONY: test-deb
test-deb: build-test deb $(DEB_TREE) ## the Debian package on a fresh Debian under systemd: install, use, upgrade, remove
	@./test/setup/setup.sh lintian
	lintian --allow-root --fail-on error,warning $(DEB)
	@$(MAKE) --no-print-directory deb VERSION=0.0~before DEB=bin/package/before.deb
	CIM_DEB=$(CURDIR)/$(DEB) CIM_DEB_BEFORE=$(CURDIR)/bin/package/before.deb CIM_DEB_TREE=$(DEB_TREE) CIM_UML=$(UML) \
		go test -count=1 -v ./test/deb

$(DEB_TREE): | setup-test
	@mkdir -p $(CACHE)
	mmdebstrap --quiet --variant=minbase --format=tar --aptopt='Acquire::Check-Valid-Until "false"' \
		--include=systemd-sysv,udev,dbus,kmod,e2fsprogs,thin-provisioning-tools,ca-certificates,dmsetup bookworm $@.part
	@mv $@.part $@

.PHONY: test-kernels
test-kernels: build-test ## the tests that need a real thin pool, on each of the kernels 6.1, 6.12 and 7.2
	@failed=; for kernel in 6.1 6.12 7.2; do \
		$(DM) CIM_UML_KERNEL=$$kernel bin/uml-test -skip '$(APART)' $(KERNEL) || failed="$$failed $$kernel"; \
	done; test -z "$$failed" || { echo "failed on:$$failed" >&2; exit 1; }

.PHONY: test-crash
test-crash: build-test ## kill the daemon and its kernel at every point, twice, and at N=500 random moments (SEED= for the same again)
	$(DM) CIM_CRASH_EVERY=1 CIM_CRASH_RANDOM=$(N) CIM_CRASH_SEED=$(SEED) bin/uml-test -v -alone ./test/crash

.PHONY: soak
soak: build-test ## keep a daemon busy for MINUTES=15 with a random mix of uploads, commands, users, faults, kills (SEED= for the same again)
	go test -c -o bin/soak.test ./test/soak
	@mkdir -p bin/soak
	$(DM) CIM_SOAK_MINUTES=$(MINUTES) CIM_SOAK_SEED=$(SEED) CIM_SOAK_DIR=$(CURDIR)/bin/soak CIM_UML_WRITABLE=$(CURDIR)/bin/soak \
		$(UML) -- $(CURDIR)/bin/soak.test -test.v -test.timeout=0 -test.run '^TestSoak$$'

.PHONY: test-debian
test-debian: build-test $(CACHE)/debian-minbase.tar $(CACHE)/debian-python3-gcc.tar ## real Debian images, plain and in layers, against GNU tar (minutes)
	$(DM) CIM_DEBIAN_IMAGES=$(CACHE)/debian-minbase.tar:$(CACHE)/debian-python3-gcc.tar bin/uml-test -v -run '^TestDebianImages$$' ./test/e2e

.PHONY: test-images
test-images: build-test $(CACHE)/image-tools $(CACHE)/debian-minbase.tar $(CACHE)/debootstrap.tar ## archives written by real tools, against GNU tar and umoci, and through the daemon (root; UPDATE=1 writes the table of docs/images.md)
	CIM_WRITERS=$(CURDIR)/bin/writers CIM_UPDATE=$(UPDATE) go test -count=1 -run '^TestArchivesOfTools$$' ./test/writers
	CIM_WRITERS=$(CURDIR)/bin/writers $(DM) bin/uml-test -run '^TestArchivesOfToolsBecomeSnapshots$$' ./test/e2e

# busybox has two packages, and one ends the other.
.PHONY: setup-images
setup-images: setup-test
	@./test/setup/setup.sh acl attr libcap2-bin python3 buildah podman debootstrap \
		$$(command -v busybox >/dev/null || echo busybox)

$(CACHE)/image-tools: $(WRITERS)/go.mod $(WRITERS)/go.sum | setup-images
	@mkdir -p $@
	cd $(WRITERS) && go build -o $@/ tool
	@touch $@

$(CACHE)/debootstrap.tar: | setup-images
	@mkdir -p $(CACHE) && rm -rf $@.root
	debootstrap --variant=minbase bookworm $@.root >$@.log || { cat $@.log >&2; exit 1; }
	tar -C $@.root -cf $@.part . && mv $@.part $@ && rm -rf $@.root $@.log

.PHONY: lint
lint: $(GOLANGCI) $(DEADCODE) ## golangci-lint and deadcode, pinned
	$(GOLANGCI) run ./...
	cd $(OBSERVE) && $(GOLANGCI) run ./...
	cd $(BENCH) && $(GOLANGCI) run ./...
	@for tags in '' failpoint; do \
		dead=$$($(DEADCODE) -tags="$$tags" ./cmd/...); \
		test -z "$$dead" || { echo "$$dead" >&2; exit 1; }; \
	done

$(GOLANGCI):
	@mkdir -p $(CACHE)
	GOBIN=$(CACHE) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv $(CACHE)/golangci-lint $@

$(DEADCODE):
	@mkdir -p $(CACHE)
	GOBIN=$(CACHE) go install golang.org/x/tools/cmd/deadcode@$(DEADCODE_VERSION)
	@mv $(CACHE)/deadcode $@

.PHONY: bench
bench: build-test bench-build $(CACHE)/debian-minbase.tar $(CACHE)/debian-python3-gcc-git.tar ## compare with the peers on an idle machine, and write docs/performance.md (root; ROUNDS=5 OTHERS=12 HUGE=10737418240)
	$(DM) bin/bench/bench -bin bin/bench -work $(CACHE)/bench -page docs/performance.md -rounds $(ROUNDS) -others $(OTHERS) -huge $(HUGE) \
		-minbase $(CACHE)/debian-minbase.tar -large $(CACHE)/debian-python3-gcc-git.tar -guests $(CURDIR)/bin

.PHONY: bench-smoke
bench-smoke: build-test bench-build ## the same once with tiny data, to see that it works; its figures say nothing
	$(AS_ROOT) $(CURDIR)/bin/bench/bench -smoke -bin $(CURDIR)/bin/bench

.PHONY: bench-build
bench-build: setup-test
	@mkdir -p bin/bench
	go build $(RELEASE) -ldflags='-s -w' -o bin/bench/consumer ./cmd/consumer
	cd $(BENCH) && go build -o $(CURDIR)/bin/bench/ . ./product ./peers tool

.PHONY: benchmarks
benchmarks: build-test ## the Go benchmarks; compare ratios within one run
	go test -run '^$$' -bench . -benchtime 1s ./internal/archive/... ./internal/download
	$(ONE_CPU) go test -run '^$$' -bench . -benchtime 200x -exec "$(UML)" ./internal/devmapper ./internal/provision

.PHONY: clean
clean: ## remove what was built; the cached image and linter stay
	rm -rf bin
