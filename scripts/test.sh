#!/usr/bin/env bash
#
# Runs all tests: ./scripts/test.sh [arguments for cargo test]
#
# Everything is set up first (scripts/setup.sh). The tests run on SQLite and on PostgreSQL; PostgreSQL is a private,
# throw-away cluster that this script starts on a free port of 127.0.0.1 and removes at the end, so several runs do not
# disturb each other. Most of its connections need no password: it holds test data only, but do not run it on a machine whose
# other users you do not trust.
#
#   TEST_POSTGRES_URL   use this server instead (a role that may create databases); nothing is started
#   TEST_COMMAND        run this instead of `cargo test --workspace --locked`
#   EXAMPLES            `all`: that a tool for examples/ is missing (Go, Maven, nginx, Envoy) is a failure, not only said
#   TMPDIR              where the cluster is put, /tmp when not set
#
# The tests see TEST_POSTGRES_URL, VERIFIER_PYTHON (a Python with PyJWT), VERIFIER_NODE_DIR (a folder whose node_modules has
# jose) and SCHEMATHESIS (its program). Property tests see a seed, so that they do the same each time; PROPTEST_RNG_SEED and
# PROPTEST_CASES make them do something else, or more.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cluster=
watchdog=

say() { printf 'test: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# Runs a PostgreSQL program. The server refuses to run as root: there the user `postgres` of the Debian package does it.
postgres_do() {
    if [[ $EUID -eq 0 ]]; then
        (cd / && exec runuser -u postgres -- "$@")
    else
        (cd / && exec "$@")
    fi
}

start_postgres() {
    local bin
    bin=$(find /usr/lib/postgresql -path '*/bin/initdb' -printf '%h\n' 2>/dev/null | sort -V | tail -n 1)
    [[ -n $bin ]] || die "no PostgreSQL server under /usr/lib/postgresql"
    if [[ $EUID -eq 0 ]] && ! id postgres >/dev/null 2>&1; then
        die "running as root needs the user 'postgres', which is missing"
    fi
    pg_ctl=$bin/pg_ctl

    cluster=$(mktemp -d "${TMPDIR:-/tmp}/authservice-postgres.XXXXXX")
    trap stop_postgres EXIT
    if [[ $EUID -eq 0 ]]; then chown postgres: "$cluster"; fi
    postgres_do "$bin/initdb" -D "$cluster/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$cluster/initdb.log" 2>&1 ||
        die "initdb failed: $(cat "$cluster/initdb.log")"
    # Passwords are asked for where a test is about them: its role belongs to this group.
    postgres_do sed -i '1i host all +authservice_asked 127.0.0.1/32 scram-sha-256' "$cluster/data/pg_hba.conf"
    export TEST_POSTGRES_ASKS=yes
    # Durability stays as in production: tests that kill and race transactions must see the real thing.
    postgres_do tee -a "$cluster/data/postgresql.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 128MB
fsync = on
synchronous_commit = on
full_page_writes = on
CONF

    # The server itself tells whether a port is free, so there is no gap between asking and taking. The range lies below
    # that of outgoing connections.
    local port
    for _ in {1..20}; do
        port=$((20000 + RANDOM % 12000))
        if postgres_do "$pg_ctl" start -w -t 60 -s -D "$cluster/data" -l "$cluster/data/server.log" -o "-p $port" >/dev/null 2>&1; then
            export TEST_POSTGRES_URL=postgres://postgres@127.0.0.1:$port/postgres
            watch_postgres
            say "PostgreSQL $("$bin/postgres" --version | grep -oE '[0-9]+\.[0-9]+' | head -n 1) at $TEST_POSTGRES_URL"
            return
        fi
        grep -qE 'Address already in use|could not bind' "$cluster/data/server.log" 2>/dev/null || break
        : >"$cluster/data/server.log"
    done
    die "PostgreSQL does not start: $(tail -n 20 "$cluster/data/server.log" 2>/dev/null)"
}

stop_postgres() {
    if [[ -n $watchdog ]]; then kill -KILL "$watchdog" 2>/dev/null || true; fi
    if [[ -d $cluster ]]; then
        postgres_do "$pg_ctl" stop -s -m immediate -D "$cluster/data" >/dev/null 2>&1 || true
        rm -rf "$cluster"
    fi
}

# Removes the cluster also when this script is killed and its trap cannot run.
watch_postgres() {
    (
        trap '' HUP INT TERM
        trap - EXIT
        tail --pid=$$ -f /dev/null
        watchdog=
        stop_postgres
    ) </dev/null >/dev/null 2>&1 &
    watchdog=$!
    disown "$watchdog"
}

"$root/scripts/setup.sh"

export VERIFIER_PYTHON=$root/target/verifiers/venv/bin/python
export VERIFIER_NODE_DIR=$root/target/verifiers/node
export SCHEMATHESIS=$root/target/verifiers/schemathesis/bin/st
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}
# jose needs the global WebCrypto, which Debian 12's Node.js 18 has behind a flag.
if ! node -e 'CryptoKey' 2>/dev/null; then
    export NODE_OPTIONS="${NODE_OPTIONS:+$NODE_OPTIONS }--experimental-global-webcrypto"
fi

if [[ -n ${TEST_POSTGRES_URL:-} ]]; then
    say "using the PostgreSQL server of TEST_POSTGRES_URL"
else
    start_postgres
fi

cd "$root"
read -r -a command <<<"${TEST_COMMAND:-cargo test --workspace --locked}"
"${command[@]}" "$@"
