# The commands of this project. Everything else is plain cargo.

# Seconds that each fuzz target runs.
SECONDS_EACH ?= 60
# Where the tests look for knotd.
export PATH := $(PATH):/usr/sbin

# The container image's name, and what else to tell `docker build`.
IMAGE ?= swiftlet
IMAGE_FLAGS ?=

# Where cargo builds, and below it the counter of instructions and its counts.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# The runner must have the version of the library.
GUNGRAUN := $(shell sed -n '/^name = "gungraun"$$/{n;s/^version = "\(.*\)"/\1/p}' Cargo.lock)
RUNNER := $(TARGET)/tools/gungraun-$(GUNGRAUN)/bin/gungraun-runner
COUNTS := $(TARGET)/gungraun
# What builds with each feature alone.
CARGO_HACK := 0.6.46
HACK := $(TARGET)/tools/cargo-hack-$(CARGO_HACK)/bin/cargo-hack

.PHONY: help run test features check packages image test-image fuzz loom miri soak bench bench-micro bench-check bench-baseline counts
.PHONY: bench-generator bench-cache bench-flood bench-outage bench-backends bench-xdp ablation peers compare compare-full

# Where the results of a measurement go, under the name that is given.
results = --markdown bench/results/$(1).md --json bench/results/$(1).json

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

run: ## build and start the server on port 5300 of loopback
	cargo run --release

# One build for all of them: a feature only adds, so the tests of the default server hold with af-xdp too.
test: packages check ## format, lints, unit, property and end-to-end tests; those of AF_XDP as root
	cargo test --workspace --features swiftlet/af-xdp,swiftlet-bench/af-xdp
	@.ci/say-skipped

features: packages $(HACK) ## lints and tests with each feature alone, none and all; end-to-end over io_uring and AF_XDP
	@.ci/test-features $(HACK)

# Unoptimized, for it is waited for longer than it runs.
$(HACK):
	cargo install --quiet --locked --debug --root $(TARGET)/tools/cargo-hack-$(CARGO_HACK) \
	    --version $(CARGO_HACK) cargo-hack

check: ## format and lints alone, those of the fuzz targets too
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet
	for crate in net parser; do CARGO_TARGET_DIR=$(TARGET) cargo clippy --locked --no-default-features \
	    --manifest-path $$crate/fuzz/Cargo.toml -- -D warnings || exit 1; done

packages: ## install what the end-to-end tests use, as root
	@.ci/install-test-packages

image: ## build the container image
	docker build --tag $(IMAGE) $(IMAGE_FLAGS) \
	    --build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)" \
	    --build-arg REVISION="$$(git describe --always --abbrev=40 --dirty 2>/dev/null)" .

test-image: ## build the image and test it with an engine of its own, as root
	@.ci/test-image

fuzz: ## run each fuzz target for SECONDS_EACH (needs nightly and cargo-fuzz)
	cd parser && for target in query response template_round_trip; do \
	    cargo +nightly fuzz run $$target -- -max_total_time=$(SECONDS_EACH) || exit 1; \
	done
	cd net && for target in frame batch; do \
	    cargo +nightly fuzz run $$target -- -max_total_time=$(SECONDS_EACH) || exit 1; \
	done

loom: ## the cache's readers and writers in every order that matters
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET)/loom \
	    cargo test -p swiftlet-cache --lib segmented::model

miri: ## the cache's unsafe parts under Miri, in some ten minutes (needs nightly with miri and rust-src)
	MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p swiftlet-cache --lib segmented

soak: ## cache and backends for some minutes: every answer checked, memory and slots watched
	SWIFTLET_SOAK_SECONDS=60 cargo test --release -p swiftlet-net --features io-uring,af-xdp --lib \
	    contract -- --ignored --nocapture --test-threads 1
	SWIFTLET_SOAK_SECONDS=60 cargo test --release -p swiftlet-cache --test stress -- --nocapture
	for mib in 64 256; do SWIFTLET_SOAK_SECONDS=60 SWIFTLET_SOAK_MIB=$$mib cargo test --release \
	    -p swiftlet-cache --test memory -- --ignored --nocapture || exit 1; done

bench: ## the server against a bare echo: CPU per answer, as a ratio
	cargo build --release -p swiftlet -p swiftlet-bench
	$(TARGET)/release/swiftlet-bench hit

bench-micro: ## time each hot function by itself, in a few minutes
	cargo bench -p swiftlet-bench --bench micro

bench-check: counts ## count the instructions of each hot function; fail if one grew by more than 3 %
	cargo run --quiet -p swiftlet-bench -- instructions --check --summaries $(COUNTS)

bench-baseline: counts ## count them, and make that what bench-check compares with
	cargo run --quiet -p swiftlet-bench -- instructions --write --summaries $(COUNTS)

counts: $(RUNNER)
	@.ci/install-test-packages valgrind=valgrind
	cargo bench --quiet -p swiftlet-bench --bench instructions --no-run
	@rm -rf $(COUNTS) && mkdir -p $(COUNTS)
	@echo "counting instructions under callgrind ..."
	@GUNGRAUN_RUNNER=$(RUNNER) GUNGRAUN_HOME=$(COUNTS) \
	    cargo bench --quiet -p swiftlet-bench --bench instructions -- --save-summary=json --parallel=2 \
	    >$(COUNTS)/log 2>&1 || { cat $(COUNTS)/log; exit 1; }

# Unoptimized, for it is waited for longer than it runs.
$(RUNNER):
	cargo install --quiet --locked --debug --root $(TARGET)/tools/gungraun-$(GUNGRAUN) \
	    --version $(GUNGRAUN) gungraun-runner

bench-generator: packages ## the load generator beside dnsperf, its authority beside the echo
	cargo build --release -p swiftlet-loadtest -p swiftlet-bench
	$(TARGET)/release/swiftlet-bench generator --markdown bench/results/generator.md \
	    --json bench/results/generator.json

bench-cache: ## the answer cache beside moka, quick_cache and a plain LRU: time, hit ratio, memory
	cargo build --release -p swiftlet-bench
	@mkdir -p bench/results
	$(TARGET)/release/swiftlet-bench cache $(call results,cache)

bench-flood: ## what a flood of random names does to the hit ratio of each of them
	cargo build --release -p swiftlet-bench
	@mkdir -p bench/results
	$(TARGET)/release/swiftlet-bench flood $(call results,flood)

bench-outage: ## what hits cost while misses hang on a dead upstream
	cargo build --release -p swiftlet -p swiftlet-bench
	@mkdir -p bench/results
	$(TARGET)/release/swiftlet-bench outage $(call results,outage)

# Both io_uring echoes are in the feature of bench, the backend in the server's.
bench-backends: ## io_uring beside recvmmsg: bare echoes, and the server on each backend
	cargo build --release -p swiftlet -p swiftlet-bench --features swiftlet/io-uring,swiftlet-bench/io-uring
	$(TARGET)/release/swiftlet-bench backends --results bench/results

# Namespaces and AF_XDP need root.
bench-xdp: ## AF_XDP beside a bare echo, Knot DNS and sockets over a veth pair, as root, in half an hour
	@.ci/install-test-packages kxdpgun=knot-dnsutils knotd=knot unbound=unbound ip=iproute2 ethtool=ethtool
	cargo build --release -p swiftlet -p swiftlet-bench --features swiftlet/af-xdp,swiftlet-bench/af-xdp
	$(TARGET)/release/swiftlet-bench compare xdp --results bench/results

# A part of it, without a file: swiftlet-bench ablation --switch no-simd --workload hit
ablation: ## what each optimization is worth: the server with one switch turned at a time, in half an hour
	cargo build --release -p swiftlet-bench
	$(TARGET)/release/swiftlet-bench ablation --results bench/results

# Without root it says what is missing, and the comparison goes on with those that are there.
peers: ## install the servers that ours is compared with, as root
	-@.ci/install-test-packages unbound=unbound kresd=knot-resolver pdns_recursor=pdns-recursor \
	    dnsdist=dnsdist named=bind9 nsd=nsd dnsmasq=dnsmasq-base knotd=knot

compare: peers ## the server, its peers and the echo side by side: hits and misses
	cargo build --release -p swiftlet -p swiftlet-bench
	$(TARGET)/release/swiftlet-bench compare --results bench/results --workload hit --workload miss

compare-full: peers ## the same for all workloads: Zipf's law, TCP and memory too
	cargo build --release -p swiftlet -p swiftlet-bench
	$(TARGET)/release/swiftlet-bench compare --results bench/results
