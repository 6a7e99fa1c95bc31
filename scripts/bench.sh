#!/usr/bin/env bash
#
# Measures what requests cost: ./scripts/bench.sh [arguments for bench, see --help]
#
# Builds the release binary and the benchmark, and runs it with a PostgreSQL of its own. Takes about ten minutes after the
# build. Close what else uses the processor: figures are CPU time per request, but neighbours still disturb caches.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/setup.sh" chaos
cargo build --release --locked --manifest-path "$root/Cargo.toml" -p authservice -p proofs --bin authservice --bin bench
exec "${CARGO_TARGET_DIR:-$root/target}/release/bench" "$@"
