# `make` alone says what there is.

TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
GUEST_DIR := $(TARGET_DIR)/guest
GUEST_TRIPLE := x86_64-unknown-linux-gnu
GUEST_INIT := $(GUEST_DIR)/build/$(GUEST_TRIPLE)/release/novacron-guest

.DEFAULT_GOAL := help
.PHONY: help guest

guest: ## build the guest that tests and the demonstration migrate
	@# Static, because the guest has no libraries; apart from the other crates, because they must not be.
	RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static -C strip=symbols" \
		cargo build --quiet --locked --release -p novacron-guest --target $(GUEST_TRIPLE) --target-dir $(GUEST_DIR)/build
	cargo run --quiet --locked --release -p novacron-testbed --bin novacron-initrd -- $(GUEST_INIT) $(GUEST_DIR)/initrd
