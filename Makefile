# `make` prints what there is. `make demo` and `make test` work on a bare Debian or Ubuntu with Go, as root.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GOLANGCI_VERSION := v2.15.0
CACHE := $(CURDIR)/.cache
GOLANGCI := $(CACHE)/golangci-lint-$(GOLANGCI_VERSION)
IMAGE ?= $(CACHE)/debian-minbase.tar
UML := $(CURDIR)/bin/uml-run
# The crash tests kill the kernel, too.
CRASH := CIM_UML_REBOOTS=1 CIM_REQUIRE_DM=1 CONSUMER_BIN=$(CURDIR)/bin/consumer-failpoint
N ?= 500
# Packages whose tests need a real thin pool; the rest runs on any machine.
KERNEL := ./test/e2e ./test/powercut ./test/disks ./internal/archive/... ./internal/devmapper

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install the Debian packages that build, tests and demo need (root)
	@./test/setup.sh gcc libc6-dev user-mode-linux e2fsprogs dmsetup thin-provisioning-tools awscli shellcheck curl git

.PHONY: build
build: setup ## build bin/consumer, bin/emulator and bin/uml-run
	@mkdir -p bin
	go build -o bin/consumer ./cmd/consumer
	go build -o bin/emulator ./test/emulator/serve
	CGO_ENABLED=0 go build -o bin/uml-run ./test/uml/run

.PHONY: demo
demo: build $(IMAGE) ## upload a real Debian image and watch it become a snapshot (IMAGE=path/to.tar for another)
	@$(UML) -- $(CURDIR)/bin/consumer demo "$$(realpath "$(IMAGE)")"

$(CACHE)/debian-python3-gcc.tar: MORE := --include=python3,gcc
$(CACHE)/debian-minbase.tar $(CACHE)/debian-python3-gcc.tar:
	@./test/setup.sh mmdebstrap debian-archive-keyring
	@mkdir -p $(CACHE)
	mmdebstrap --quiet --format=tar --variant=minbase $(MORE) --aptopt='Acquire::Check-Valid-Until "false"' bookworm $@.part
	@mv $@.part $@

.PHONY: test
test: test-host test-uml ## all tests: unit, conformance, end to end, user-mode-linux
	@echo "all tests passed"

.PHONY: test-host
test-host: setup ## the tests that any machine can run, with the race detector
	CIM_REQUIRE_TOOLS=1 go test -race ./...

.PHONY: test-uml
test-uml: build ## the tests that need a real thin pool, in user-mode-linux (natively where root has dm-thin)
	go build -tags failpoint -o bin/consumer-failpoint ./cmd/consumer
	CIM_REQUIRE_DM=1 CONSUMER_BIN=$(CURDIR)/bin/consumer-failpoint go test -count=1 -p 2 -timeout 1h -exec "$(UML)" $(KERNEL)
	$(CRASH) go test -count=1 -v -exec "$(UML)" ./test/crash

.PHONY: test-crash
test-crash: build ## kill the daemon and its kernel at every point, twice, and at N=500 random moments (SEED= for the same again)
	go build -tags failpoint -o bin/consumer-failpoint ./cmd/consumer
	go test -c -o bin/crash.test ./test/crash
	@$(CRASH) CIM_CRASH_EVERY=1 CIM_CRASH_RANDOM=$(N) CIM_CRASH_SEED=$(SEED) $(UML) bin/crash.test

.PHONY: test-debian
test-debian: build $(CACHE)/debian-minbase.tar $(CACHE)/debian-python3-gcc.tar ## real Debian images, plain and in layers, against GNU tar (minutes)
	go build -tags failpoint -o bin/consumer-failpoint ./cmd/consumer
	CIM_REQUIRE_DM=1 CONSUMER_BIN=$(CURDIR)/bin/consumer-failpoint CIM_DEBIAN_IMAGES=$(CACHE)/debian-minbase.tar:$(CACHE)/debian-python3-gcc.tar \
		go test -count=1 -v -timeout 1h -exec "$(UML)" -run '^TestDebianImages$$' ./test/e2e

.PHONY: lint
lint: $(GOLANGCI) ## golangci-lint, pinned
	$(GOLANGCI) run ./...

$(GOLANGCI):
	@mkdir -p $(CACHE)
	GOBIN=$(CACHE) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv $(CACHE)/golangci-lint $@

.PHONY: bench
bench: build ## the benchmarks; compare ratios within one run
	go test -run '^$$' -bench . -benchtime 1s ./internal/archive ./internal/download
	go test -run '^$$' -bench . -benchtime 200x -exec "$(UML)" ./internal/devmapper

.PHONY: clean
clean: ## remove what was built; the cached image and linter stay
	rm -rf bin
