# The commands of this project. Everything else is plain cargo.

# Seconds that each fuzz target runs.
SECONDS_EACH ?= 60
# Where the tests look for knotd.
export PATH := $(PATH):/usr/sbin

# The container image's name, and what else to tell `docker build`.
IMAGE ?= swiftlet
IMAGE_FLAGS ?=

.PHONY: help run test check packages image test-image fuzz bench peers compare compare-full

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: ## build and start the server on port 5300 of loopback
	cargo run --release

test: packages check ## format, lints, unit, property and end-to-end tests
	cargo test --workspace
	cargo test -p swiftlet-parser --no-default-features

check: ## format and lints alone
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p swiftlet-parser --no-default-features --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet

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

bench: ## the server against a bare echo: CPU per answer, as a ratio
	cargo build --release -p swiftlet -p swiftlet-bench
	target/release/swiftlet-bench hit

# Without root it says what is missing, and the comparison goes on with those that are there.
peers: ## install the servers that ours is compared with, as root
	-@.ci/install-test-packages unbound=unbound kresd=knot-resolver pdns_recursor=pdns-recursor \
	    dnsdist=dnsdist named=bind9 nsd=nsd dnsmasq=dnsmasq-base knotd=knot

compare: peers ## the server, its peers and the echo side by side: hits and misses
	cargo build --release -p swiftlet -p swiftlet-bench
	target/release/swiftlet-bench compare --results bench/results --workload hit --workload miss

compare-full: peers ## the same for all workloads: Zipf's law, TCP and memory too
	cargo build --release -p swiftlet -p swiftlet-bench
	target/release/swiftlet-bench compare --results bench/results
