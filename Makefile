# SPDX-License-Identifier: Apache-2.0

GO            ?= go
BIN           ?= bin
SEEDS         ?= 50
FUZZTIME      ?= 200000x
TORTURE       ?= 1h
SEED          ?= 1
STORE         ?= versity
# Packages with goroutines: what the race detector is for.
RACE          ?= ./scheduler/... ./tiered/... ./broker/... ./localstore/... ./internal/server/... ./internal/daemon/...
GOLANGCI_LINT ?= $(BIN)/golangci-lint
# The same version as in .ci/run.
LINT_VERSION  ?= v2.15.0
VULN_VERSION  ?= v1.9.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/cicada, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/cicada ./cmd/cicada

.PHONY: test
test: ## run every test of the product
	$(GO) vet ./...
	$(GO) test ./...

.PHONY: race
race: ## run the packages with goroutines under the race detector
	$(GO) test -race -short $(RACE)

.PHONY: sim
sim: ## run SEEDS simulated histories with faults; PROFILE=owners or gc likes a part
	$(GO) run ./internal/sim/cmd -seeds $(SEEDS) -profile "$(PROFILE)"

.PHONY: torture
torture: ## trouble real processes for TORTURE (1h), from SEED on; STORE=minio FAULTS=kill,stop
	cd integration && $(GO) run ./torture -for $(TORTURE) -seed $(SEED) -store "$(STORE)" -faults "$(FAULTS)"

.PHONY: crash
crash: ## crash, cut, damage and fail the local store in every way; minutes
	CICADA_DAMAGE=full $(GO) test -count=1 -timeout 60m -v \
		-run 'TestCrashClones|TestTornLog|TestDamage$$|TestDiskErrors' ./localstore

.PHONY: exam
exam: ## plant known mistakes and see what guards find each of them; EXAM=quick a dozen
	$(GO) run ./internal/exam/cmd $(if $(filter quick,$(EXAM)),-quick,-write) -only "$(MISTAKE)"

.PHONY: guarantees
guarantees: ## write docs/guarantees.md from the findings of the last exam
	$(GO) run ./internal/exam/cmd -document

.PHONY: fuzz
fuzz: ## run every fuzz function FUZZTIME times
	FUZZTIME=$(FUZZTIME) .ci/run fuzz

.PHONY: lint
lint: $(GOLANGCI_LINT) ## run golangci-lint and the house rules
	$(GOLANGCI_LINT) run ./...
	cd integration && $(abspath $(GOLANGCI_LINT)) run ./...
	$(GO) test ./internal/tidy

$(GOLANGCI_LINT):
	GOBIN=$(abspath $(BIN)) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

.PHONY: generate
generate: ## write generated code and documents again
	$(GO) generate ./...

.PHONY: verify
verify: ## check that formats, modules and generated files are as committed
	test -z "$$(gofmt -l .)"
	$(GO) mod verify
	$(GO) generate ./...
	git diff --exit-code

.PHONY: vulncheck
vulncheck: ## look for known vulnerabilities; needs the network for their database
	$(GO) run golang.org/x/vuln/cmd/govulncheck@$(VULN_VERSION) ./...

.PHONY: bench
bench: ## run the benchmarks of the hot paths, short
	$(GO) test -run '^$$' -bench . -benchtime 0.3s -short ./timewheel ./delay ./localstore ./tiered/... ./scheduler ./internal/server/...

.PHONY: bench-tier
bench-tier: ## measure the cold tier on a real MinIO, beside plain loops
	cd integration && $(GO) test -run '^$$' -bench Tier -benchtime 1x -timeout 60m .

.PHONY: bench-kafka
bench-kafka: ## measure intake and release beside a real Kafka, and plain clients in turn; about four minutes
	@cd integration && $(GO) run ./kafkabench

.PHONY: demo
demo: build ## show the whole story in a minute, in an empty directory
	dir=$$(mktemp -d) && cd "$$dir" && $(abspath $(BIN))/cicada demo; rm -rf "$$dir"

.PHONY: demo-rocketmq
demo-rocketmq: build ## show what RocketMQ loses and Cicada saves; three minutes, needs Java 17
	cd integration && $(GO) run ./rocketmq/demo -program $(abspath $(BIN))/cicada

.PHONY: bench-rocketmq
bench-rocketmq: build ## measure Cicada beside a real RocketMQ; ONLY=mirror,rescue,owner
	cd integration && $(GO) run ./rocketmq/bench -program $(abspath $(BIN))/cicada $(if $(ONLY),-only $(ONLY))

.PHONY: e2e
e2e: build ## run the end-to-end tests of the module integration/
	cd integration && $(GO) test ./...

.PHONY: clean
clean: ## remove what the targets above made
	rm -rf $(BIN)
	$(GO) clean -testcache
