#!/usr/bin/env bash
#
# Builds the image and runs it as a careful operator would, with the real Docker of scripts/docker.sh and without pulling anything.
#
#   ./scripts/image.sh            the debug server that cargo builds, put into the image: is the image right?
#   ./scripts/image.sh release    the whole Dockerfile, with its own compile
#   ./scripts/image.sh lint       only reads the Dockerfile and docker-compose.yml
#   ./scripts/image.sh build      only builds the images, into target/image/images.tar, for scripts/cluster.sh
#
# Needs what scripts/docker.sh needs. Where that cannot be, the script says so and ends well, unless IMAGE=required. The bases are made
# from Debian's packages, under the names that the Dockerfile and docker-compose.yml ask for. Everything lies in target/image and
# target/docker.
#
#   AUTHSERVICE_BIN   use this server instead of building one

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root work=$root/target/image tools=$root/target/tools/python/bin scope=${1:-test}
readonly server=/usr/local/bin/authservice name=authservice-under-test image=authservice:local
readonly runtime=gcr.io/distroless/cc-debian13:nonroot rust=rust:1.95-slim-trixie postgres=postgres:17-trixie
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
# The network is the daemon's own, so commands of the documentation run as they stand there.
readonly version url=http://localhost:9998

# shellcheck source=scripts/checks.sh
source "$root/scripts/checks.sh"
explain() {
    [[ ${IMAGE_INSIDE:-} ]] || return 0
    local container
    for container in $(docker ps --all --quiet); do
        docker ps --all --filter "id=$container" --format '{{.Names}}: {{.Status}}'
        docker logs --tail 20 "$container"
    done
}

lint() {
    cd "$root"
    holds "hadolint has nothing to say" "$tools/hadolint" Dockerfile
    holds "docker-compose.yml keeps to the schema" "$tools/check-jsonschema" --builtin-schema vendor.compose-spec docker-compose.yml
    holds "compose-lint finds nothing grave" "$tools/compose-lint" check docker-compose.yml
}

# --- what Docker shall build from

# Packages of Debian 13 as the root of an image: debian NAME VARIANT PACKAGES
debian() {
    [[ ! -e $work/$1.tar ]] || return 0
    say "making a root of Debian 13: $3"
    unshare --mount mmdebstrap --quiet --variant="$2" --include="$3" --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        trixie "$work/$1.part.tar" || die "mmdebstrap cannot make a root of $3"
    mv "$work/$1.part.tar" "$work/$1.tar"
}

bases() {
    debian runtime extract base-files,libc6,libgcc-s1,libssl3t64,ca-certificates,tzdata,netbase
    debian postgres minbase postgresql
    [[ $scope == release ]] || return 0
    debian rust minbase ca-certificates,gcc,libc6-dev
    # Only the toolchain, which the real base has, is this machine's, and so are the certificates.
    rm -rf "$work/toolchain"
    mkdir "$work/toolchain"
    cp -a "$(rustc --print sysroot)"/{bin,lib} /etc/ssl/certs/ca-certificates.crt "$work/toolchain"
}

# What the stage that compiles leaves, with the debug server instead: a folder that takes the place of the stage.
compile_debug() {
    if [[ -z ${AUTHSERVICE_BIN:-} ]]; then
        say "building the debug server"
        cargo build --locked --quiet --manifest-path "$root/Cargo.toml" --package authservice --package proofs --bins
    fi
    # Modes go into the image.
    umask 022
    rm -rf "$work/stage"
    mkdir -p "$work/stage/out/usr/local/bin"
    install -d -m 0700 "$work/stage/out/var/lib/authservice"
    strip -o "$work/stage/out/usr/local/bin/authservice" "${AUTHSERVICE_BIN:-${CARGO_TARGET_DIR:-$root/target}/debug/authservice}"
    find "$work/stage/out" -exec touch --date=@0 {} +
}

# The repository as a clone has it, for the commands of the documentation: no .env and no keys of this checkout.
clone() {
    rm -rf "$work/clone"
    mkdir "$work/clone"
    git -C "$root" ls-files -z --cached --others --exclude-standard |
        tar --create --directory "$root" --null --files-from - --ignore-failed-read | tar --extract --directory "$work/clone"
    [[ $scope != release ]] || return 0
    cat >"$work/clone/docker-compose.override.yml" <<YAML
services:
  auth_service_main: &service
    build:
      additional_contexts:
        build: $work/stage
  auth_service_postgres: *service
YAML
}

# --- the images

# stand_in BASE NAME [arguments for docker import]
stand_in() {
    local base=$1 file=$work/$2.tar
    shift 2
    docker image inspect "$base" >/dev/null 2>&1 || docker import "$@" "$file" "$base" >/dev/null
}

build() {
    SOURCE_DATE_EPOCH=0 docker build --provenance=false --progress plain "$@" >"$work/build.log" 2>&1 || {
        tail -n 20 "$work/build.log" >&2
        die "docker build $*"
    }
}

build_debug() {
    build --build-context "build=$work/stage" --no-cache --tag authservice:first "$work/clone"
    build --build-context "build=$work/stage" --no-cache --tag "$image" "$work/clone"
    holds "two builds give the same image" test "$(identity authservice:first)" = "$(identity "$image")"
}
identity() { docker image inspect --format '{{.Id}}' "$1"; }

build_release() {
    stand_in localhost/rust-base rust
    build --tag "$rust" --file - "$work/toolchain" <<'DOCKERFILE'
FROM localhost/rust-base
COPY ca-certificates.crt /etc/ssl/certs/
COPY bin /usr/local/bin
COPY lib /usr/local/lib
ENV CARGO_HOME=/usr/local/cargo
DOCKERFILE
    say "building the whole Dockerfile: some ten minutes the first time"
    local started=$SECONDS
    build --tag "$image" "$work/clone"
    say "docker build took $((SECONDS - started)) s"
}

build_postgres() {
    stand_in localhost/postgres-base postgres
    build --tag "$postgres" "$root/scripts/postgres-stand-in"
}

# --- the image, run

# As strict as an orchestrator can be; not even /tmp may be written.
start() {
    docker run --detach --name "$name" --read-only --cap-drop ALL --security-opt no-new-privileges --memory 128m --pids-limit 64 \
        --publish 127.0.0.1:9998:9998 "$@" >"$work/check.log"
}
remove() { docker rm --force --volumes "$name" >/dev/null; }
in_server() { docker exec "$name" "$server" "$@"; }
ready() { curl --silent --fail --output /dev/null "$url/health/ready"; }
is() { [[ $(docker inspect --format '{{.State.Health.Status}}' "$2") == "$1" ]]; }
process() { docker inspect --format '{{.State.Pid}}' "$1"; }
# What the kernel says of a container's first process.
status() { awk '/^(Uid|Gid|CapBnd|CapEff|NoNewPrivs):/ { print $2 }' "/proc/$(process "$1")/status" | xargs; }

# Stops as an orchestrator does: SIGTERM to process 1, SIGKILL ten seconds later.
stops() {
    docker stop --time 10 "$1" >/dev/null && ended_well "$1"
}
ended_well() {
    prints 0 docker inspect --format '{{.State.ExitCode}}' "$1" && docker logs "$1" 2>&1 | tail -n 1 | grep '"stopped"'
}

# The commands under a heading of the documentation, as they stand there.
code() { awk -v heading="$2" '/^##+ / { here = $0 == heading } here && /^```/ { code = /^```sh/; next } here && code' "$root/$1"; }
follow() { (cd "$work/clone" && bash -euo pipefail -c "$(code "$@")"); }

tour() {
    local text
    text=$(follow README.md "## A tour") || return
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
    pair=$(curl --silent --fail "$url/auth_api/v1/auth/login" --header 'Content-Type: application/json' \
        --data '{"email":"alice@example.com","password":"Str0ng!Passw0rd"}')
    curl --silent --fail "$url/.well-known/jwks.json" | python3 -c '
import base64, json, sys
head = json.loads(sys.argv[1])["access_token"].split(".")[0]
kid = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]
sys.exit(kid not in [key["kid"] for key in json.load(sys.stdin)["keys"]])' "$pair"
}

examine() {
    local config started shell code=0
    # The first container tells whether this machine can run any: 125 and 126 are Docker's and runc's own.
    docker run --rm "$image" --version >"$work/check.log" 2>&1 || code=$?
    [[ $code -ne 125 && $code -ne 126 ]] || not_run "this machine cannot run containers: $(cat "$work/check.log")"
    holds "it says its version" test "$code $(cat "$work/check.log")" = "0 authservice $version"
    config=$(docker image inspect --format '{{with .Config}}{{.User}} {{.Entrypoint}} {{.Cmd}} {{.StopSignal}} {{.ExposedPorts}} {{.Volumes}}{{end}}' "$image")
    holds "the image says what it is" test "$config" = \
        "65532:65532 [$server] [serve] SIGTERM map[9998/tcp:{} 9999/tcp:{}] map[/var/lib/authservice:{}]"
    holds "its label names the version of Cargo.toml" prints "$version" \
        docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$image"
    holds "its health is asked by its own binary" prints "[CMD $server healthcheck]" \
        docker image inspect --format '{{.Config.Healthcheck.Test}}' "$image"
    holds "its folder is its user's alone, the one above root's" prints "drwxr-xr-x 0/0 drwx------ 65532/65532" folders
    for shell in /bin/sh /bin/bash /bin/busybox /busybox/sh; do
        holds "there is no $shell" exits 127 docker run --rm --entrypoint "$shell" "$image" -c true
    done
    holds "a faulty setting ends it with 78" exits 78 docker run --rm --env AUTHSERVICE__SERVER__PROT=1 "$image"

    started=$(date +%s%N)
    start --volume authservice:/var/lib/authservice "$image"
    holds "it starts with a read-only root, no capability, 128 MB and 64 processes" retry ready
    say "cold start: $((($(date +%s%N) - started) / 1000000)) ms until ready; size: $(docker image inspect --format '{{.Size}}' "$image") bytes"
    holds "it runs as user and group 65532, has no capability and gains none" prints "65532 65532 0000000000000000 0000000000000000 1" status "$name"
    holds "Docker finds it healthy" retry is healthy "$name"
    say "healthy after $((($(date +%s%N) - started) / 1000000)) ms"
    holds "its health check is content" in_server healthcheck
    holds "so is the check of a deployment" in_server healthcheck --url http://127.0.0.1:9998/.well-known/openid-configuration
    holds "the tour of the README goes through" tour
    holds "sessions can be swept by hand" in_server cleanup
    say "memory after the tour: $(docker stats --no-stream --format '{{.MemUsage}}' "$name")"
    holds "SIGTERM ends it with 0 within 10 s" stops "$name"
    docker start "$name" >/dev/null
    holds "it starts again on the same volume" retry ready
    holds "its user is still there, and verifiers have the key" token_is_verifiable
    remove

    mounted_secrets
    start --health-interval 1s --health-start-period 1s --env DATABASE_URL=postgres://nobody@127.0.0.1:1/nothing "$image"
    holds "without its database it lives" retry in_server healthcheck --live
    holds "and is not ready" exits 1 in_server healthcheck
    holds "which Docker finds out" retry is unhealthy "$name"
    holds "and SIGTERM ends it with 0" stops "$name"
    remove
}

folders() {
    local container
    container=$(docker create "$image")
    docker export "$container" | tar --list --verbose --numeric-owner | awk '$6 ~ "^var/lib/(authservice/)?$" { print $1, $2 }' | xargs
    docker rm "$container" >/dev/null
}

# Secrets as orchestrators mount them: read-only, root's, readable by the group. And the data in a folder of this machine.
mounted_secrets() {
    rm -rf "$work/secrets" "$work/data"
    install -d -m 750 -g 65532 "$work/secrets"
    install -d -m 700 -o 65532 -g 65532 "$work/data"
    head -c 32 /dev/urandom | base64 >"$work/secrets/encryption.key"
    echo 'sqlite:///var/lib/authservice/other.db?mode=rwc' >"$work/secrets/database_url"
    chgrp 65532 "$work"/secrets/*
    chmod 440 "$work"/secrets/*
    start --volume "$work/secrets:/secrets:ro" --volume "$work/data:/var/lib/authservice" --env AUTHSERVICE__KEYS__DIRECTORY=/secrets \
        --env DATABASE_URL_FILE=/secrets/database_url "$image"
    holds "keys and settings may be read-only files of mode 0440" retry ready
    holds "and its data may lie in a folder" test -s "$work/data/other.db"
    remove
}

# --- docker-compose.yml

compose() { (cd "$work/clone" && docker compose "$@"); }
settings() {
    docker inspect --format '{{with .HostConfig}}{{.ReadonlyRootfs}} {{.CapDrop}} {{.SecurityOpt}} {{.NanoCpus}} {{.Memory}} {{.PidsLimit}}{{end}}' "$1"
}

# What holds for the server of either profile, once it is healthy.
composed() {
    local container
    container=$(compose ps --quiet "$1")
    holds "its root is read-only, its limits are set" prints "true [ALL] [no-new-privileges:true] 1000000000 268435456 128" settings "$container"
    holds "it runs as user and group 65532, has no capability and gains none" \
        prints "65532 65532 0000000000000000 0000000000000000 1" status "$container"
    holds "its port is published on 127.0.0.1 only" prints "9998/tcp -> 127.0.0.1:9998" docker port "$container"
}

killed_and_back() {
    local container
    container=$(compose ps --quiet auth_service_main)
    kill -KILL "$(process "$container")"
    retry is_back "$container"
}
is_back() { prints 1 docker inspect --format '{{.RestartCount}}' "$1" && is healthy "$1"; }

waited_for_the_database() {
    docker events --since 5m --until 0s --filter type=container --filter event=start --filter event=health_status \
        --format '{{.Actor.Attributes.name}} {{.Action}}' | tee /dev/stderr |
        awk '/auth_service_database.* health_status: healthy$/ { healthy = 1 } /auth_service_postgres.* start$/ { waited = healthy; exit } END { exit !waited }'
}

compose_sqlite() {
    holds "docker-compose.yml starts on SQLite, and is healthy" compose up --build --detach --wait
    composed auth_service_main
    holds "the tour of the README goes through" tour
    holds "its commands work beside it" grep -F alice@example.com <(compose exec --no-TTY auth_service_main "$server" users list)
    holds "killed, it is started again" killed_and_back
    holds "it goes" compose down
    holds "it comes again" compose up --detach --wait
    holds "its user is still there, and verifiers have the key" token_is_verifiable
    local container
    container=$(compose ps --quiet auth_service_main)
    holds "it stops" compose stop
    holds "with exit code 0" ended_well "$container"
    holds "and goes with its data" compose down --volumes
}

compose_postgres() {
    holds "install.md: it starts on PostgreSQL, and is healthy" follow docs/install.md "### On PostgreSQL"
    holds "not before the database was" waited_for_the_database
    composed auth_service_postgres
    holds "the tour of the README goes through" tour
    holds "and goes" compose --profile postgres down --volumes
}

quick_start() {
    local started=$SECONDS
    holds "quick-start.md: it starts in a container, and is healthy" follow docs/quick-start.md "## Or in a container"
    if curl --silent --fail --head --max-time 20 --output /dev/null https://pypi.org/simple/; then
        holds "quick-start.md: a resource server verifies the first token" first_token
        say "quick start: $((SECONDS - started)) s to a verified token, once the server is compiled"
    else
        skip "quick-start.md: PyPI is out of reach, so no token is verified with PyJWT"
    fi
    holds "and goes with its data" compose down --volumes
}
first_token() {
    local text
    text=$( (cd "$work/clone" && bash -euo pipefail -c "$(code docs/quick-start.md '## The first token'; code docs/quick-start.md '## A second client')"))
    printf '%s\n' "$text"
    [[ $text == *"'iss': '$url'"*'"full_name":"Alice"'* ]]
}

with_docker() {
    stand_in "$runtime" runtime --change 'USER 65532'
    if [[ $scope == release ]]; then build_release; else build_debug; fi
    build_postgres
    if [[ $scope == build ]]; then
        docker save --output "$work/images.tar" "$image" "$postgres"
        return
    fi
    examine
    compose_sqlite
    compose_postgres
    quick_start
    say "all of it holds"
}

if [[ ${IMAGE_INSIDE:-} ]]; then
    with_docker
    exit
fi
"$root/scripts/setup.sh" image
mkdir -p "$work"
[[ $scope == build ]] || lint
[[ $scope != lint ]] || exit 0
[[ $EUID -eq 0 ]] || not_run "building and running an image needs root"
exec 8>"$work/.lock"
flock 8 # one run at a time in this checkout
[[ $scope == release ]] || compile_debug
bases
clone
DOCKER=${IMAGE:-} "$root/scripts/docker.sh" env IMAGE="${IMAGE:-}" IMAGE_INSIDE=1 "$root/scripts/image.sh" "$scope"
