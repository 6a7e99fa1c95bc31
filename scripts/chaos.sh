#!/usr/bin/env bash
#
# Breaks a running server and counts what its clients lose: ./scripts/chaos.sh list | run R10 R02 | run all --short
#
# Builds the debug server and the program in one go, installs what is missing (PostgreSQL, libfaketime, HAProxy), and runs
# `chaos` with the arguments. As root it fills disks of its own; otherwise those faults are left out, which it says.
#
#   CHAOS_PROFILE   release: build and break the release server instead
#   PGBOUNCER       the program for R28, 1.21 or newer (Debian 13 has one); without it R28 is left out, which it says
#   HAPROXY         the program for R38, /usr/sbin/haproxy when not set
#   TMPDIR          where servers and databases are put, /tmp when not set

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/setup.sh" chaos

profile=dev folder=debug
if [[ ${CHAOS_PROFILE:-} == release ]]; then profile=release folder=release; fi
cargo build --locked --quiet --manifest-path "$root/Cargo.toml" --profile "$profile" --package authservice --package proofs --bins
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true # thousands of clients
exec "${CARGO_TARGET_DIR:-$root/target}/$folder/chaos" "$@"
