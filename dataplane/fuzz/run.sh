#!/usr/bin/env bash
# Runs fuzz targets from their kept corpora.
#
#   dataplane/fuzz/run.sh [SECONDS] [TARGET...]     60 seconds for each of all targets by default
#
# What the fuzzer finds goes to target/fuzz/<target>/ and stays there between runs; a crash is kept in artifacts/.
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

found=0
for target in "${targets[@]}"; do
    binary="target/$host/release/$target"
    mkdir -p "corpus/$target" "target/fuzz/$target" "artifacts/$target"
    echo "run.sh: $target for $seconds s"
    if ! "$binary" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target/" "target/fuzz/$target" "corpus/$target" \
        2>"target/fuzz/$target.log"; then
        found=1
        tail -n 30 "target/fuzz/$target.log" >&2
        input="$(ls -t "artifacts/$target"/* 2>/dev/null | head -n 1 || true)"
        echo "run.sh: $target failed on ${input:-an input that was not kept}" >&2
        echo "run.sh: replay with: (cd dataplane/fuzz && $binary $input)" >&2
        continue
    fi
    # A target that never ran would also find nothing.
    grep -E "stat::number_of_executed_units|cov:" "target/fuzz/$target.log" | tail -n 2
done
exit "$found"
