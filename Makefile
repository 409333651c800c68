# `make` alone says what there is.

export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
GUEST_DIR := $(TARGET_DIR)/guest
GUEST_TRIPLE := x86_64-unknown-linux-gnu
GUEST_INIT := $(GUEST_DIR)/build/$(GUEST_TRIPLE)/release/novacron-guest
# The guest's own binary is built by `guest`, in another way.
CRATES := --workspace --exclude novacron-guest

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests guest guest-image build package monitoring demo bench bench-full figures microbench ebpf test lint unit fuzz e2e
# Steps share the processor and one build directory: in order, whatever -j says.
.NOTPARALLEL:

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

setup: ## install what is missing (Debian, Ubuntu); elsewhere list it
	@benches/install.sh

setup-tests:
	@benches/install.sh --tests

guest: setup ## build the guest that tests and the demonstration migrate
	@# Static, because the guest has no libraries; apart from the other crates, because they must not be.
	RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static -C strip=symbols" \
		cargo build --quiet --locked --release -p novacron-guest --target $(GUEST_TRIPLE) --target-dir $(GUEST_DIR)/build
	cargo run --quiet --locked --release -p novacron-testbed --bin novacron-initrd -- \
		$(GUEST_INIT) $(GUEST_DIR)/initrd $(GUEST_DIR)/modules

guest-image: setup ## make the disk image that workloads of real programs run from
	benches/guest/image.sh

build: setup ## build everything, optimised
	cargo build --locked --release $(CRATES)

package: setup-tests build ## make a Debian package with hardened units, and check it
	image/deb/check.sh "$$(image/deb/build.sh $(TARGET_DIR)/release $(TARGET_DIR)/package)"

monitoring: setup-tests build ## check alert rules and dashboard against the control process, in a real Prometheus
	control/monitoring/check.sh $(TARGET_DIR)/release

demo: guest build ## migrate a running guest through two gateways and say what came of it
	$(TARGET_DIR)/release/novacron-demo $(TARGET_DIR)/demo

bench: guest-image guest build ## measure the scenarios that matter most over emulated links, under 12 minutes on 2 cores
	$(TARGET_DIR)/release/novacron-bench run --short --minutes 10 --out $(TARGET_DIR)/bench

bench-full: guest-image figures ## measure every scenario, and the promised figures: hours
	$(TARGET_DIR)/release/novacron-bench run --out $(TARGET_DIR)/bench

figures: guest build ## measure the promised figures on loopback and say of each whether it is reached
	$(TARGET_DIR)/release/novacron-figures --json $(TARGET_DIR)/figures.json

microbench: setup ## speed of the protocol's hot paths, in GB/s
	cargo bench --locked -p novacron-protocol

ebpf: setup-tests ## compile the kernel's program anew with clang 14; commit what it writes
	ebpf/bpf/build.sh ebpf/bpf/probe.bpf.o

test: lint unit fuzz e2e package monitoring ## everything that must hold, as CI runs it

lint: setup ## formatting and lints
	cargo fmt --all --check
	cargo fmt --manifest-path dataplane/fuzz/Cargo.toml --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

unit: setup-tests ## tests that need no hypervisor
	cargo test --locked --workspace --exclude novacron-testbed --exclude novacron-bench
	cargo test --locked -p novacron-testbed -p novacron-bench --lib --bins

fuzz: setup ## a minute of fuzzing from the kept corpus
	@if [ -x dataplane/fuzz/run.sh ]; then dataplane/fuzz/run.sh; else echo "no fuzz targets in this tree"; fi

e2e: setup-tests guest build ## tests with real hypervisors, one at a time
	cargo test --locked --release -p novacron-testbed -p novacron-bench --test '*' -- --test-threads=1
