# `make help` lists the targets. They need Go (see go.mod), git, and a C compiler for the race detector.

# Everybody who may push a tag chooses the tag's name, which may contain shell commands. Therefore, unusual characters of
# the name are replaced here, and recipes read VERSION and COMMIT from the environment.
ifeq ($(origin VERSION),undefined)
VERSION := $(or $(shell git describe --tags --always --dirty 2>/dev/null | tr -c 'A-Za-z0-9.+_\n-' -),dev)
endif
ifeq ($(origin COMMIT),undefined)
COMMIT := $(or $(shell git rev-parse HEAD 2>/dev/null),unknown)
endif
build release: export VERSION := $(value VERSION)
build release: export COMMIT := $(value COMMIT)
CHECK_STAMP = case "$$VERSION$$COMMIT" in *[!A-Za-z0-9.+_-]*) \
	echo '$@: VERSION and COMMIT may only have letters, digits and . + _ -' >&2; exit 2 ;; esac

PACKAGES ?= ./...
ARGS     ?=
BENCH    ?= .
ROWS     ?= 100000
RUNS     ?= 5
FUZZTIME ?= 30s
VERSIONS ?= $(wildcard /usr/lib/postgresql/*/bin)
PLATFORMS = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64
# Most tests wait for a server or a disk, so more tests run at the same time than there are processors. By default, a
# program with the race detector sleeps for a second when it exits. When Go reuses more than 64 kB of memory, the race
# detector also replaces its own records of this memory by new pages. In tests with long rows, the page faults took two
# fifths of the processor time. GORACE prevents both. With -trimpath, packages and programs do not contain the path of the
# clone, so a clone in another folder finds the packages in the build cache. With -count=1, tests run even if Go remembers that
# they have passed. Vet is left to make vet, which checks more.
TEST      = GORACE='atexit_sleep_ms=0 clear_shadow_mmap_threshold=1000000000' go test -race -count=1 -vet=off -trimpath -p 3 -parallel 8 -timeout 20m

.PHONY: compiler space help run build check test test-versions vet lint vulnerabilities bench fuzz release postgres chromium strace stores peers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

run: postgres build ## run the demo: capture and a temporary Postgres with changing votes (ARGS="--rate 10")
	@bin/capture demo $(ARGS)

build: ## build bin/capture
	@$(CHECK_STAMP)
	@mkdir -p bin
	@CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$$VERSION -X main.commit=$$COMMIT" -o bin/capture ./cmd/capture

check: space postgres chromium strace stores vet ## vet, and run the tests without a long wait: for the daily loop
	go test -vet=off -trimpath -short -p 2 -parallel 4 $(PACKAGES)

test: compiler space postgres chromium strace stores ## run all tests with the race detector; they start Postgres servers of their own
	$(TEST) $(PACKAGES)

test-versions: compiler space strace stores ## run all tests with each of several Postgres versions (13 to 19; VERSIONS="/usr/lib/postgresql/13/bin /opt/pg19/bin")
	@test -n "$(strip $(VERSIONS))" || { echo 'test-versions: set VERSIONS to folders with initdb and postgres' >&2; exit 2; }
	@failed=; for bin in $(VERSIONS); do \
		version=$$("$$bin/postgres" --version) || { failed="$$failed $$bin"; continue; }; \
		echo "== $$version in $$bin"; \
		PATH="$$bin:$$PATH" $(TEST) $(PACKAGES) || failed="$$failed $$bin"; \
	done; test -z "$$failed" || { echo "test-versions: failed on$$failed" >&2; exit 1; }

lint: vulnerabilities vet ## vet, and check for known vulnerabilities

vet: ## check format and go.mod, and run go vet and staticcheck
	@unformatted=$$(gofmt -l .) && test -z "$$unformatted" || { echo "run gofmt -w on: $$unformatted" >&2; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	go mod tidy -diff

vulnerabilities: ## check for known vulnerabilities
	@# The vulnerability database is on the Internet. If it is unreachable, the target fails on GitHub's runners, which can
	@# usually reach it. On other machines, the target only reports this.
	@echo 'go tool govulncheck $(PACKAGES)'; out=$$(go tool govulncheck $(PACKAGES) 2>&1) || \
	case $$out in \
	*'fetching vulnerabilities:'*) \
		echo 'govulncheck: NOT CHECKED, because its database (vuln.go.dev) is unreachable' >&2; \
		test "$$CI $$GITHUB_ACTIONS" != 'true true' ;; \
	*) printf '%s\n' "$$out" >&2; exit 1 ;; \
	esac

bench: postgres peers stores ## compare capture with baselines and other programs, into docs/performance.md (ROWS=1000000; BENCH=Latency RUNS=1 for a part; KEPT=1 for kept states, too)
	CAPTURE_BENCH_ROWS=$(ROWS) CAPTURE_BENCH_KEPT=$(KEPT) go run ./internal/bench -runs $(RUNS) -bench '$(BENCH)'

fuzz: postgres ## run each fuzz test for FUZZTIME (30s)
	@for package in $$(go list $(PACKAGES)); do \
		tests=$$(go test -list '^Fuzz' "$$package") || { printf '%s\n' "$$tests" >&2; exit 1; }; \
		for name in $$(printf '%s\n' "$$tests" | grep '^Fuzz'); do \
			echo "== $$package $$name"; \
			go test -run '^$$' -fuzzminimizetime 5x -fuzz "^$$name\$$" -fuzztime '$(FUZZTIME)' "$$package" || exit 1; \
		done; \
	done

release: ## build an archive for each platform into dist/, with SHA256SUMS; reproducible
	@# The same commit and Go version give the same bytes, because the order, owners, modes and times of the files in the
	@# archives do not depend on the machine.
	@tar --version 2>/dev/null | grep -q GNU || { echo 'release: tar must be GNU tar' >&2; exit 1; }
	@$(CHECK_STAMP)
	@rm -rf dist && mkdir -p dist && set -e; \
	at=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)}; \
	for platform in $(PLATFORMS); do \
		name=capture_$${VERSION}_$$(echo $$platform | tr / _); echo "$$name.tar.gz"; \
		mkdir dist/$$name; \
		CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/} GOFLAGS= go build -trimpath -buildvcs=false \
			-ldflags "-s -w -X main.version=$$VERSION -X main.commit=$$COMMIT" -o dist/$$name/capture ./cmd/capture; \
		cp -R $(wildcard README.md LICENSE docs) deploy/capture.service deploy/capture@.service dist/$$name/; \
		tar --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mode='u=rwX,go=rX' --mtime="@$$at" \
			-C dist -cf dist/$$name.tar $$name; \
		gzip -n -9 dist/$$name.tar; \
		rm -r dist/$$name; \
	done; \
	cd dist && sha256sum *.tar.gz >SHA256SUMS

compiler: # the race detector needs a C compiler; other targets install nothing before this check has succeeded
	@command -v "$$(go env CC)" >/dev/null || { echo "make: no C compiler ($$(go env CC)) for the race detector: install gcc or clang, or run 'make check'" >&2; exit 1; }

space: # on a disk that is more than four fifths full, capture drops kept states and spills no rows, so their tests would fail
	@df -Pk "$${TMPDIR:-/tmp}" | awk 'NR == 2 && $$4 * 5 < $$2 { print "make: less than a fifth of " $$6 " is free, and some tests need more:" \
		" free some space, or set TMPDIR to a folder on another disk"; exit 1 }' >&2

postgres: ## install PostgreSQL's server programs if they are missing
	@deploy/install-postgres.sh

chromium: ## install Chromium, for the tests of the page, if it is missing
	@deploy/install-chromium.sh

peers: ## install the programs that bench compares capture with if they are missing
	@deploy/install-bench.sh

strace: ## install strace, for tests that make system calls fail, if it is missing
	@deploy/install-strace.sh

stores: ## install the object stores for tests of copies, Azurite and versitygw, if they are missing
	@deploy/install-stores.sh

clean: ## remove what make has built
	rm -rf bin dist
