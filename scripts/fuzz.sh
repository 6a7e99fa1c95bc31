#!/usr/bin/env bash
#
# Fuzzes what reads strangers' bytes: ./scripts/fuzz.sh [SECONDS [TARGET...]]
#
# Runs each target of fuzz/ (all of them by default) for so many seconds (60 by default) and says how many inputs it tried. Works
# with a stable toolchain: the coverage counters are LLVM's, no address sanitizer is asked for. The first build takes as long as that
# of the server. With a nightly toolchain and cargo-fuzz, `cargo fuzz run TARGET` does the same with a sanitizer.
#
# Inputs worth keeping are collected below target/fuzz-corpus, those that fail below target/fuzz-findings; run one again with
# target/fuzz/*/debug/TARGET FILE. The seeds in fuzz/corpus stay as they are.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
seconds=${1:-60}
shift || true
targets=("$@")
[[ $# -gt 0 ]] || targets=(token claims headers email body)

say() { printf 'fuzz: %s\n' "$*" >&2; }

./scripts/setup.sh build

host=$(rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz passes, without the sanitizer, which stable toolchains do not have.
flags=(--cfg fuzzing -Cpasses=sancov-module)
for counter in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=("-Cllvm-args=-sanitizer-coverage-$counter")
done
flags+=(-Ccodegen-units=1)
# OpenSSL need not be built again if the server was: it has no counters.
openssl=$(compgen -G "${CARGO_TARGET_DIR:-target}/debug/build/openssl-sys-*/out/openssl-build/install" | head -n 1 || true)
if [[ -n $openssl ]]; then
    export OPENSSL_NO_VENDOR=1 OPENSSL_STATIC=1 OPENSSL_DIR
    OPENSSL_DIR=$(realpath "$openssl")
fi
if ! RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=target/fuzz \
    cargo build --locked --quiet --manifest-path fuzz/Cargo.toml --target "$host" --bins; then
    say "NOT RUN: $(rustc --version) does not build the targets (libFuzzer needs a C++ compiler and LLVM's coverage pass)"
    exit 1
fi

failed=0
for target in "${targets[@]}"; do
    corpus=target/fuzz-corpus/$target findings=target/fuzz-findings/$target
    mkdir -p "$corpus" "$findings"
    log=$findings/log
    if "target/fuzz/$host/debug/$target" "$corpus" "fuzz/corpus/$target" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
        -print_final_stats=1 -artifact_prefix="$findings/" >"$log" 2>&1; then
        say "$target: no findings in $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs"
    else
        failed=1
        say "$target: FAILED, see $log"
        grep -E 'panicked|assertion|ERROR|Test unit written|left|right' "$log" >&2 || tail -n 20 "$log" >&2
    fi
done
exit $failed
