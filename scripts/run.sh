#!/usr/bin/env bash
#
# Builds the server and runs it with the default settings: ./scripts/run.sh [arguments for authservice serve]
#
# Installs the C toolchain first where it is missing. Data goes to authservice.db and keys/ in the current folder.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/setup.sh" build
cargo build --locked --manifest-path "$root/Cargo.toml" --bin authservice
exec "${CARGO_TARGET_DIR:-$root/target}/debug/authservice" serve "$@"
