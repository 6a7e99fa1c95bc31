#!/usr/bin/env bash
#
# Builds the image and runs it as a careful operator would, without pulling anything.
#
#   ./scripts/image.sh            the debug server that cargo builds, put into the image: is the image right?
#   ./scripts/image.sh postgres   the same, and docker-compose.yml with PostgreSQL
#   ./scripts/image.sh all        the same, and the whole Dockerfile with its own compile
#   ./scripts/image.sh lint       only reads the Dockerfile and docker-compose.yml
#   ./scripts/image.sh build      only builds the images, for scripts/cluster.sh
#
# Needs root, Debian packages (scripts/setup.sh image) and a machine that may run containers. Where it may not, the script says
# so and ends well, unless IMAGE=required. The bases are made from Debian's packages under the names that the Dockerfile asks
# for; everything lies in target/image, apart from the machine's own images.
#
#   AUTHSERVICE_BIN   use this server instead of building one

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root work=$root/target/image tools=$root/target/tools/python/bin scope=${1:-test}
readonly server=/usr/local/bin/authservice name=authservice-under-test
readonly runtime=gcr.io/distroless/cc-debian13:nonroot rust=docker.io/library/rust:1.95-slim-trixie
readonly postgres=docker.io/library/postgres:17-trixie
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
# What the tests publish on 127.0.0.1.
readonly version port=${IMAGE_PORT:-18998}
readonly base=http://127.0.0.1:$port

say() { printf 'image: %s\n' "$*" >&2; }
die() {
    say "FAILED: $*"
    exit 1
}
not_run() {
    [[ ${IMAGE:-} != required ]] || die "$1"
    say "NOT RUN: $1"
    exit 0
}
# Runs a check and says what holds. The commands after the sentence must succeed.
holds() {
    local sentence=$1
    shift
    "$@" >"$work/check.log" 2>&1 || {
        cat "$work/check.log" >&2
        podman logs --tail 20 "$name" >&2 2>/dev/null || true
        die "$sentence"
    }
    say "ok: $sentence"
}
exits() {
    local expected=$1 status=0
    shift
    "$@" || status=$?
    [[ $status -eq $expected ]] || {
        echo "exit code $status, not $expected: $*"
        return 1
    }
}

lint() {
    mkdir -p "$work"
    cd "$root"
    holds "hadolint has nothing to say" "$tools/hadolint" Dockerfile
    holds "docker-compose.yml keeps to the schema" "$tools/check-jsonschema" --builtin-schema vendor.compose-spec docker-compose.yml
    holds "compose-lint finds nothing grave" "$tools/compose-lint" check docker-compose.yml
}

# --- a place of its own for images and containers

prepare() {
    mkdir -p "$work/context/out" "$work/networks"
    install -d -m 0700 "$work/context/out/lib/authservice"
    cat >"$work/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$work/tmp"
[network]
network_backend = "netavark"
network_config_dir = "$work/networks"
CONF
    cat >"$work/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$work/storage"
runroot = "$work/run"
CONF
    # The Docker format keeps HEALTHCHECK.
    export CONTAINERS_CONF=$work/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf BUILDAH_FORMAT=docker
    exec 8>"$work/.lock"
    flock 8 # one run at a time in this checkout
    trap clean EXIT
    clean
}

clean() {
    podman rm --force --all --volumes --time 2 >/dev/null 2>&1 || true
    podman volume prune --force >/dev/null 2>&1 || true
}

# Packages of Debian 13 as the root of an image: stand_in IMAGE VARIANT PACKAGES [arguments for podman import]
stand_in() {
    local image=$1 variant=$2 packages=$3
    shift 3
    ! podman image exists "$image" || return 0
    say "making a stand-in for $image"
    mmdebstrap --quiet --variant="$variant" --include="$packages" --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' trixie "$work/root.tar" || not_run "mmdebstrap cannot make a root of $packages"
    podman import --quiet "$@" "$work/root.tar" "$image" >/dev/null 8>&-
    rm "$work/root.tar"
}

bud() {
    buildah bud --quiet --pull-never --network host --isolation chroot --timestamp 0 --identity-label=false \
        --file "$root/Dockerfile" "$@" "$root" 8>&-
}

# --- two ways to the binary

# The stage that compiles is replaced by a folder with what is compiled already.
build_debug() {
    if [[ -z ${AUTHSERVICE_BIN:-} ]]; then
        say "building the debug server"
        cargo build --locked --quiet --manifest-path "$root/Cargo.toml" --package authservice --package proofs --bins
    fi
    strip -o "$work/context/out/authservice" "${AUTHSERVICE_BIN:-${CARGO_TARGET_DIR:-$root/target}/debug/authservice}"
    bud --build-context build="$work/context" --no-cache --tag authservice:first >/dev/null
    bud --build-context build="$work/context" --no-cache --tag authservice:local >/dev/null
    holds "two builds of the image have the same layers" test "$(layers authservice:first)" = "$(layers authservice:local)"
}

layers() { podman image inspect --format '{{.RootFS.Layers}}' "$1"; }

# The Dockerfile as it stands; only the toolchain, which the real base has, is this machine's.
build_release() {
    stand_in localhost/rust-base minbase ca-certificates,gcc,libc6-dev
    if ! podman image exists "$rust"; then
        local container
        container=$(buildah from --pull-never localhost/rust-base)
        buildah config --env RUSTUP_HOME=/usr/local/rustup --env CARGO_HOME=/usr/local/cargo \
            --env PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
        buildah commit --quiet --rm "$container" "$rust" >/dev/null
    fi
    say "building the whole Dockerfile: some ten minutes the first time"
    bud --volume "${RUSTUP_HOME:-$HOME/.rustup}:/usr/local/rustup:ro" --volume "${CARGO_HOME:-$HOME/.cargo}/bin:/usr/local/cargo/bin:ro" \
        --volume /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro --tag authservice:local >/dev/null
}

# --- the image, run

# Podman 4.3 asks systemd for the timer of a health check: the tests ask themselves.
run() { podman run --pull never --no-healthcheck "$@" 8>&-; }
# As strict as an orchestrator can be; not even /tmp may be written.
start() {
    run --detach --name "$name" --read-only --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges \
        --memory 128m --pids-limit 64 --publish "127.0.0.1:$port:9998" "$@"
}
in_server() { podman exec "$name" "$server" "$@"; }
status() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$(podman inspect --format '{{.State.Pid}}' "$name")/status"; }

ready() {
    local attempt
    for attempt in {1..300}; do
        if curl --silent --fail --output /dev/null "$base/health/ready"; then return; fi
        sleep 0.05
    done
    echo "not ready after $attempt attempts"
    return 1
}

# Stops as an orchestrator does: SIGTERM to process 1, SIGKILL ten seconds later.
stops() {
    podman stop --time 10 "$name" >/dev/null || return
    local code
    code=$(podman inspect --format '{{.State.ExitCode}}' "$name")
    echo "exit code $code"
    [[ $code -eq 0 ]] && podman logs "$name" 2>&1 | tail -n 1 | grep '"stopped"'
}

# The commands of the README, as they stand there.
tour() {
    local text
    awk '/^## /{ is_tour = /^## A tour/ } is_tour && /^```/{ is_code = /^```sh/; next } is_tour && is_code' "$root/README.md" |
        sed "s|http://localhost:9998|$base|g" >"$work/tour.sh"
    text=$(bash -euo pipefail "$work/tour.sh") || return
    printf '%s\n' "$text"
    for part in '"email":"alice@example.com"' '"expires_in":900' 'the same refresh token' '"current":true' \
        'The session has ended' refresh_reuse_detected; do
        grep -qF "$part" <<<"$text" || {
            echo "no $part"
            return 1
        }
    done
    [[ $(grep -cE '(^|[]}])204$' <<<"$text") -eq 3 ]]
}

# A token of a user who came back, and the key that it names, in the set that everybody may read.
token_is_verifiable() {
    local pair
    pair=$(curl --silent --fail "$base/auth_api/v1/auth/login" --header 'Content-Type: application/json' \
        --data '{"email":"alice@example.com","password":"Str0ng!Passw0rd"}')
    curl --silent --fail "$base/.well-known/jwks.json" | "$tools/python" -c '
import base64, json, sys
head = json.loads(sys.argv[1])["access_token"].split(".")[0]
kid = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]
sys.exit(kid not in [key["kid"] for key in json.load(sys.stdin)["keys"]])' "$pair"
}

examine() {
    local image=authservice:local started
    # The first container tells whether this machine can run any: 125 and 126 are podman's and runc's own.
    local config code=0
    run --rm "$image" --version >"$work/check.log" 2>&1 || code=$?
    [[ $code -ne 125 && $code -ne 126 ]] || not_run "this machine cannot run containers: $(cat "$work/check.log")"
    holds "it says its version" test "$code $(cat "$work/check.log")" = "0 authservice $version"
    config=$(podman image inspect --format '{{.Config.User}} {{.Config.Entrypoint}} {{.Config.Cmd}} {{.Config.StopSignal}} {{.Config.ExposedPorts}} {{.Config.Volumes}}' "$image")
    holds "the image says what it is" test "$config" = \
        "65532:65532 [$server] [serve] SIGTERM map[9998/tcp:{} 9999/tcp:{}] map[/var/lib/authservice:{}]"
    holds "its label names the version of Cargo.toml" test \
        "$(podman image inspect --format '{{index .Labels "org.opencontainers.image.version"}}' "$image")" = "$version"
    holds "its health is asked by its own binary" test "$(podman image inspect --format '{{.HealthCheck.Test}}' "$image")" = "[CMD $server healthcheck]"
    holds "its folder is its user's alone, the one above root's" test "$(folders "$image")" = "755 0:0 700 65532:65532"
    local shell
    for shell in /bin/sh /bin/bash /bin/busybox /busybox/sh; do
        holds "there is no $shell" exits 127 run --rm --entrypoint "$shell" "$image" -c true
    done
    holds "a faulty setting ends it with 78" exits 78 run --rm --env AUTHSERVICE__SERVER__PROT=1 "$image"

    started=$(date +%s%N)
    start --volume authservice:/var/lib/authservice "$image" >/dev/null
    holds "it starts with a read-only root, no capability, 128 MB and 64 processes" ready
    say "cold start: $((($(date +%s%N) - started) / 1000000)) ms until ready; size: $(podman image inspect --format '{{.Size}}' "$image") bytes"
    holds "it runs as user and group 65532" test "$(status Uid) $(status Gid)" = "65532 65532"
    holds "it has no capability and gains none" test "$(status CapBnd) $(status CapEff) $(status NoNewPrivs)" = "0000000000000000 0000000000000000 1"
    holds "its health check is content" in_server healthcheck
    holds "so is the check of a deployment" in_server healthcheck --url http://127.0.0.1:9998/.well-known/openid-configuration
    holds "the tour of the README goes through" tour
    holds "sessions can be swept by hand" in_server cleanup
    say "memory after the tour: $(podman stats --no-stream --format '{{.MemUsage}}' "$name")"
    holds "SIGTERM ends it with 0 within 10 s" stops
    podman start "$name" >/dev/null 8>&-
    holds "it starts again on the same volume" ready
    holds "its user is still there, and verifiers have the key" token_is_verifiable
    clean

    mounted_secrets "$image"
    start --env DATABASE_URL=postgres://nobody@127.0.0.1:1/nothing "$image" >/dev/null
    holds "without its database it lives" retry in_server healthcheck --live
    holds "and is not ready" exits 1 in_server healthcheck
    holds "and SIGTERM ends it with 0" stops
    podman rm --force --volumes "$name" >/dev/null
}

folders() {
    local mounted
    mounted=$(podman image mount "$1")
    stat --format '%a %u:%g' "$mounted/var/lib" "$mounted/var/lib/authservice" | xargs
    podman image unmount "$1" >/dev/null
}

# Secrets as orchestrators mount them: read-only, root's, readable by the group.
mounted_secrets() {
    rm -rf "$work/secrets"
    install -d -m 750 -g 65532 "$work/secrets"
    head -c 32 /dev/urandom | base64 >"$work/secrets/encryption.key"
    echo 'sqlite:///var/lib/authservice/other.db?mode=rwc' >"$work/secrets/database_url"
    chgrp 65532 "$work"/secrets/*
    chmod 440 "$work"/secrets/*
    start --volume "$work/secrets:/secrets:ro" --env AUTHSERVICE__KEYS__DIRECTORY=/secrets --env DATABASE_URL_FILE=/secrets/database_url \
        "$1" >/dev/null
    holds "keys and settings may be read-only files of mode 0440" ready
    podman rm --force --volumes "$name" >/dev/null
}

retry() {
    local attempt
    for attempt in {1..100}; do
        if "$@"; then return; fi
        sleep 0.1
    done
    echo "gave up after $attempt attempts"
    return 1
}

# --- docker-compose.yml

# compose SERVICE COMMAND..: with another port, and without the health checks that need systemd.
compose() {
    cat >"$work/override.yml" <<YAML
services:
  auth_service_main: &service
    healthcheck: {disable: true}
    ports: !override ["127.0.0.1:$port:9998"]
  auth_service_postgres:
    <<: *service
    depends_on: !override [auth_service_database]
  auth_service_database:
    healthcheck: {disable: true}
secrets:
  postgres_password: {file: $work/secrets/postgres_password}
  encryption_key: {file: $work/secrets/encryption.key}
YAML
    (cd "$root" && PATH=$tools:$PATH "$tools/podman-compose" --project-name authservice --file docker-compose.yml \
        --file "$work/override.yml" "$@" 8>&-)
}

composed() {
    holds "docker-compose.yml starts $*" compose "$@"
    holds "it gets ready" ready
    holds "and serves" tour
    holds "and goes" compose --profile postgres down --volumes
}

build_postgres() {
    stand_in localhost/postgres-base minbase postgresql
    buildah bud --quiet --pull-never --isolation chroot --tag "$postgres" "$root/scripts/postgres-stand-in" >/dev/null 8>&-
}

compose_postgres() {
    build_postgres
    head -c 16 /dev/urandom | base64 >"$work/secrets/postgres_password"
    chmod 444 "$work"/secrets/*
    composed --profile postgres up --detach --no-build auth_service_postgres
}

"$root/scripts/setup.sh" image
[[ $scope == build ]] || lint
[[ $scope != lint ]] || exit 0
[[ $EUID -eq 0 ]] || not_run "building and running an image needs root"
unshare --mount --pid --fork true 2>/dev/null || not_run "this machine has no namespaces to give"
prepare
podman info >/dev/null || not_run "podman has no storage here"
stand_in "$runtime" extract base-files,libc6,libgcc-s1,libssl3t64,ca-certificates,tzdata,netbase --change USER=65532
build_debug
if [[ $scope == build ]]; then
    build_postgres
    exit 0
fi
examine
composed up --detach --no-build auth_service_main
if [[ $scope == postgres || $scope == all ]]; then compose_postgres; fi
if [[ $scope == all ]]; then
    build_release
    examine
fi
say "all of it holds"
