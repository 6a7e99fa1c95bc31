#!/usr/bin/env bash
#
# Breaks a running server and counts what its clients lose: ./scripts/chaos.sh list | run R10 R02 | run all --short
#
# Builds the debug server and the program in one go, installs what is missing (PostgreSQL, libfaketime, HAProxy), and runs
# `chaos` with the arguments. As root it fills disks of its own; otherwise those faults are left out, which it says.
#
#   ./scripts/chaos.sh old REF   builds the server of an earlier commit or tag and prints where it is, for OLD_BIN
#
# That takes the sources out of git and builds them in the target folder of this checkout: crates whose versions are the same are
# not compiled again. It is kept in target/old, and a second time nothing is built.
#
#   CHAOS_PROFILE   release: build and break the release server instead, also with `old`
#   OLD_BIN         an older server for R39; without it R39 is left out, which it says
#   PGBOUNCER       the program for R28, 1.21 or newer (Debian 13 has one); without it R28 is left out, which it says
#   HAPROXY         the program for R38 to R40, /usr/sbin/haproxy when not set
#   TMPDIR          where servers and databases are put, /tmp when not set

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
profile=dev folder=debug
if [[ ${CHAOS_PROFILE:-} == release ]]; then profile=release folder=release; fi

# Builds the server of a commit, unless it is there, and prints its path.
old() {
    local commit kept sources
    commit=$(git -C "$root" rev-parse --verify --quiet "$1^{commit}") || {
        echo "chaos: no commit $1" >&2
        exit 2
    }
    kept=$target/old/$folder-${commit:0:12}
    if [[ ! -x $kept/authservice ]]; then
        sources=$(mktemp -d)
        # shellcheck disable=SC2064 # the folder of now
        trap "rm -rf '$sources'" EXIT
        git -C "$root" archive "$commit" | tar -x -m -C "$sources"
        # Cargo tells crates of a workspace apart by their place in it, and would take one of ours for one of theirs and the other way round.
        # A wrapper of its own does: it counts for them alone, so that all other crates are shared.
        mkdir -p "$kept"
        printf '#!/bin/sh\nexec "$@"\n' >"$kept/rustc"
        chmod +x "$kept/rustc"
        RUSTC_WORKSPACE_WRAPPER=$kept/rustc CARGO_INCREMENTAL=0 cargo build --locked --quiet \
            --manifest-path "$sources/Cargo.toml" --target-dir "$target" --profile "$profile" --package authservice --bin authservice
        # The next build of this checkout puts its own server there again.
        cp "$target/$folder/authservice" "$kept/new"
        mv "$kept/new" "$kept/authservice"
    fi
    echo "$kept/authservice"
}

if [[ ${1:-} == old ]]; then
    "$root/scripts/setup.sh" build
    old "${2:?a commit or tag}"
    exit
fi

"$root/scripts/setup.sh" chaos
cargo build --locked --quiet --manifest-path "$root/Cargo.toml" --profile "$profile" --package authservice --package proofs --bins
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true # thousands of clients
exec "$target/$folder/chaos" "$@"
