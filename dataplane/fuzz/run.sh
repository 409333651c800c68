#!/usr/bin/env bash
# Runs fuzz targets from their kept corpora.
#
#   dataplane/fuzz/run.sh [SECONDS] [TARGET...]     all targets, a minute in all, by default
#
# SECONDS is shared by the targets; as many run at once as there are processors. Building comes on top of it.
# What the fuzzer finds goes to target/fuzz/<target>/ and stays there between runs; a crash is kept in artifacts/.
# Kept seeds of page, session and wire are written by `cargo run --bin seeds`, and checked by `cargo test`, here.
# NOVACRON_FUZZ_SEED chooses where the walk through inputs begins; 1 by default, 0 for a random one.
# Exit: 0 nothing found; 1 a target crashed or hung: the input and the command to replay it are printed; 2 wrong
# usage; 3 a target does not build.
set -euo pipefail
cd "$(dirname "$0")"

seconds=60
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then seconds="$1"; shift; fi
all=()
for file in fuzz_targets/*.rs; do all+=("$(basename "$file" .rs)"); done
targets=("${@:-${all[@]}}")
for target in "${targets[@]}"; do
    if [ ! -f "fuzz_targets/$target.rs" ]; then
        echo "run.sh: no target '$target'; there are: ${all[*]}" >&2
        exit 2
    fi
done

# libFuzzer's coverage without cargo-fuzz, which wants a nightly compiler: the sancov pass that LLVM brings along.
# --target keeps these flags from build scripts and procedural macros.
host="$(rustc -vV | sed -n 's/^host: //p')"
export RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET CARGO_ENCODED_RUSTFLAGS
build=()
for target in "${targets[@]}"; do build+=(--bin "$target"); done
cargo build --locked --release --target "$host" "${build[@]}" || exit 3

at_once="$(nproc)"
if [ "$at_once" -gt "${#targets[@]}" ]; then at_once="${#targets[@]}"; fi
# Zero would mean "for ever" to libFuzzer.
each=$((seconds * at_once / ${#targets[@]}))
if [ "$each" -lt 1 ]; then each=1; fi

# The same walk each time, so that a change is judged by itself and not by luck; NOVACRON_FUZZ_SEED takes another.
seed="${NOVACRON_FUZZ_SEED:-1}"

fuzz() {
    local target="$1" binary="target/$host/release/$1"
    mkdir -p "corpus/$target" "target/fuzz/$target" "artifacts/$target"
    if ! "$binary" -seed="$seed" -max_total_time="$each" -timeout=10 -rss_limit_mb=1024 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target/" "target/fuzz/$target" "corpus/$target" \
        2>"target/fuzz/$target.log"; then
        tail -n 30 "target/fuzz/$target.log" >&2
        local input
        input="$(ls -t "artifacts/$target"/* 2>/dev/null | head -n 1 || true)"
        echo "run.sh: $target failed on ${input:-an input that was not kept}" >&2
        echo "run.sh: replay with: (cd dataplane/fuzz && $binary $input)" >&2
        return 1
    fi
    # A target that never ran would also find nothing.
    local runs
    runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "target/fuzz/$target.log")"
    if [ "${runs:-0}" -lt 1 ]; then
        echo "run.sh: $target ran nothing" >&2
        return 1
    fi
    echo "run.sh: $target: $runs runs in $each s, nothing found"
}

echo "run.sh: ${targets[*]}: $each s each, $at_once at once"
found=0
running=0
for target in "${targets[@]}"; do
    if [ "$running" -ge "$at_once" ]; then
        wait -n || found=1
        running=$((running - 1))
    fi
    fuzz "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || found=1
    running=$((running - 1))
done
exit "$found"
