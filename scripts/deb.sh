#!/usr/bin/env bash
#
# Builds the Debian package and treats it as an operator would.
#
#   ./scripts/deb.sh            the debug server that cargo builds, packaged: is the package right?
#   ./scripts/deb.sh release    the same with a release build against Debian's own OpenSSL: target/debian/*.deb is for installing
#   ./scripts/deb.sh lint       only reads the unit, without building anything
#
# Needs Debian packages (scripts/setup.sh deb) and, for installing, root and mmdebstrap: the package is installed, run, upgraded, removed
# and purged in a throw-away root of this machine's Debian. Where that cannot be, the script says so and ends well, unless
# DEB=required. systemd itself does not run here: the unit is checked by systemd-analyze, and what it starts is started as it says. All
# lies in target/deb and target/debian.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root work=$root/target/deb scope=${1:-debug} unit=$root/packaging/authservice.service
readonly CARGO_DEB_VERSION=3.7.0
# What `systemd-analyze security` may say at most, in tenths, of 100.
readonly EXPOSURE=12
port=${DEB_PORT:-19998}
readonly port target=${CARGO_TARGET_DIR:-$root/target} tools=$root/target/tools
server=

# shellcheck source=scripts/checks.sh
source "$root/scripts/checks.sh"
explain() { if [[ -s $work/server.log ]]; then tail -n 20 "$work/server.log"; fi; }

# --- the unit

lint() {
    # The binary need not be installed here.
    sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' "$unit" >"$work/authservice.service"
    # What it says of other units of this machine is not about ours.
    holds "systemd-analyze verify has nothing to say about the unit" silent systemd-analyze verify --man=no "$work/authservice.service"
    mkdir -p "$work/authservice.service.d"
    cp "$root/packaging/credentials.conf" "$work/authservice.service.d/"
    holds "nor about its credentials" silent systemd-analyze verify --man=no "$work/authservice.service"
    rm -r "$work/authservice.service.d"
    holds "its exposure is at most $((EXPOSURE / 10)).$((EXPOSURE % 10))" \
        systemd-analyze security --offline=yes --threshold="$EXPOSURE" --no-pager "$work/authservice.service"
    say "$(grep -E 'Overall exposure' "$work/check.log" | sed 's/^[^A-Za-z]*//')"
}

# Succeeds when the command does and says nothing about the unit.
silent() { "$@" 2>&1 | tee "$work/verify.log" && ! grep -F authservice "$work/verify.log"; }

# --- the package

build() {
    local arguments=(--locked --quiet --manifest-path "$root/Cargo.toml" --package authservice)
    if [[ $scope == release ]]; then
        # Debian's OpenSSL is mended by apt, without a new package (docs/decisions/0012).
        arguments+=(--release --no-default-features --bin authservice)
    else
        # As scripts/image.sh builds it: nothing is compiled twice.
        arguments+=(--package proofs --bins)
    fi
    cargo build "${arguments[@]}"
    server=$target/$scope/authservice
}

dress() {
    local version date
    rm -rf "$work/man"
    mkdir -p "$work/man"
    "$server" man --directory "$work/man"
    "$server" completions bash >"$work/authservice.bash"
    "$server" completions zsh >"$work/_authservice"
    "$server" completions fish >"$work/authservice.fish"
    # Pages have no date of their own, and one title for what their command is called at the end.
    local page
    for page in "$work"/man/*.1; do
        sed -i "s|^\\.TH [^ ]* 1  |.TH $(basename "$page" .1) 1 \"$(date --utc --date "@$(changed)" +%F)\" |" "$page"
    done
    version=$("$server" --version | cut -d ' ' -f 2)
    date=$(date --utc --rfc-email --date "@$(changed)")
    cat >"$work/changelog" <<TEXT
authservice ($version-1) unstable; urgency=medium

  * This version: its CHANGELOG.md tells what an operator or a client notices.

 -- The AuthService authors <authservice@users.noreply.github.com>  $date
TEXT
}

# When what is packaged was last changed, so that the same source gives the same package.
changed() { git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s; }

package() {
    PATH=$tools/bin:$PATH
    if [[ $(cargo deb --version 2>/dev/null) != "$CARGO_DEB_VERSION" ]]; then
        CARGO_PROFILE_DEV_DEBUG=0 cargo install cargo-deb --debug --locked --quiet --version "$CARGO_DEB_VERSION" --root "$tools" --target-dir "$target/cargo-deb" ||
            die "cargo-deb $CARGO_DEB_VERSION cannot be installed: is the crate registry reachable?"
    fi
    # What is only tried need not be small.
    local how=(--profile dev --fast)
    if [[ $scope == release ]]; then how=(--profile release); fi
    rm -f "$root"/target/debian/authservice_*.deb
    SOURCE_DATE_EPOCH=$(changed) cargo deb --no-build --quiet --locked --strip --no-dbgsym "${how[@]}" --manifest-path "$root/Cargo.toml" \
        --package authservice --output "$root/target/debian/" >/dev/null
    deb=$(echo "$root"/target/debian/authservice_*.deb)
    say "$(basename "$deb"): $(stat --format %s "$deb") bytes, depends on $(dpkg-deb --field "$deb" Depends)"
}

examine() {
    holds "mandoc has nothing to say about the manual pages" pages_are_clean
    # The synopsis is the crate's description, and no bug of Debian's asks for the package. A vendored OpenSSL inside is what the debug
    # server has; the package for installing links Debian's.
    local suppressed=description-synopsis-starts-with-article,initial-upload-closes-no-bugs
    if [[ $scope != release ]]; then suppressed+=,embedded-library; fi
    holds "lintian finds no error and warns of nothing" lintian --no-cfg --allow-root --fail-on error,warning --tag-display-limit 0 \
        --suppress-tags "$suppressed" "$deb"
    say "lintian: $(grep -c . "$work/check.log" || true) line(s) of lesser weight"
}

# Paragraphs beside a break look as they should.
pages_are_clean() {
    local found
    found=$(mandoc -T lint -W warning "$work"/man/*.1 | grep -v 'skipping paragraph macro: br' || true)
    printf '%s\n' "$found"
    [[ -z $found ]]
}

# --- the package, installed

# With how=exec it is the shell itself that becomes the command, so that a signal to it reaches the command.
inside() { "${how:-command}" chroot "$work/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
# As the unit starts it: its user, its folder, its variables, no capability.
as_unit() {
    local variables
    mapfile -t variables < <(sed -n 's/^Environment=//p' "$work/root/usr/lib/systemd/system/authservice.service")
    inside setpriv --reuid authservice --regid authservice --clear-groups --bounding-set=-all --no-new-privs \
        env --chdir /var/lib/authservice "${variables[@]}" SERVICE_PORT="$port" AUTHSERVICE__ADMIN__PORT=0 "$@"
}

make_root() {
    [[ $EUID -eq 0 ]] || not_run "installing the package needs root"
    local codename
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
    if [[ ! -s $work/root.tar ]]; then
        say "making a root of Debian $codename"
        mmdebstrap --quiet --variant=minbase --include=adduser,curl,libssl3 --dpkgopt='path-exclude=/usr/share/locale/*' "$codename" \
            "$work/root.part.tar" || not_run "mmdebstrap cannot make a root of $codename"
        mv "$work/root.part.tar" "$work/root.tar"
    fi
    rm -rf "$work/root"
    mkdir "$work/root"
    tar --extract --file "$work/root.tar" --directory "$work/root" --exclude './dev/*'
    # What a program may expect of any machine, without this one's devices.
    mkdir -p "$work/root/dev"
    local device
    for device in null:3 zero:5 random:8 urandom:9; do
        mknod -m 666 "$work/root/dev/${device%:*}" c 1 "${device#*:}" || not_run "this machine makes no devices"
    done
    cp "$deb" "$work/root/tmp/authservice.deb"
}

running=
stop() {
    [[ -n $running ]] || return 0
    kill -TERM "$running" 2>/dev/null || true
    local code=0
    wait "$running" || code=$?
    running=
    echo "exit code $code"
    [[ $code -eq 0 ]]
}

start() {
    how="exec" as_unit "/$(sed -n 's|^ExecStart=/||p' "$unit" | cut -d ' ' -f 1)" serve >"$work/server.log" 2>&1 &
    running=$!
    local attempt
    for attempt in {1..300}; do
        if curl --silent --fail --output /dev/null "http://127.0.0.1:$port/health/ready"; then return; fi
        if ! kill -0 "$running" 2>/dev/null; then break; fi
        sleep 0.05
    done
    echo "not ready after $attempt attempts"
    return 1
}

is_gone() {
    local path
    for path; do
        [[ ! -e $work/root/$path ]] || {
            echo "$path is still there"
            return 1
        }
    done
}

is_unknown() {
    if inside dpkg --status authservice; then return 1; fi
}
owners() { inside stat --format '%a %U:%G' /etc/authservice/config.toml /var/lib/authservice | xargs; }
sign_up() {
    curl --silent --fail "http://127.0.0.1:$port/auth_api/v1/users/register" --header 'Content-Type: application/json' \
        --data '{"email":"alice@example.com","password":"Str0ng!Passw0rd"}'
}

try_it() {
    trap 'stop >/dev/null || true' EXIT
    local version
    version=$(dpkg-deb --field "$deb" Version)
    holds "it installs" inside dpkg --install /tmp/authservice.deb
    holds "it says its version" prints "authservice ${version%-*}" inside authservice --version
    holds "files have their owners" prints "640 root:authservice 700 authservice:authservice" owners
    holds "the configuration is valid" as_unit authservice config check
    holds "its completions are where bash looks" inside bash -c \
        'source /usr/share/bash-completion/completions/authservice && complete -p authservice'
    start >"$work/check.log" 2>&1 || {
        cat "$work/check.log" "$work/server.log" >&2
        die "it starts as the unit starts it"
    }
    say "ok: it starts as the unit starts it"
    holds "a user signs up" sign_up
    holds "a doctor finds nothing that fails" as_unit authservice doctor
    holds "SIGTERM ends it with 0" stop

    echo '# mine' >>"$work/root/etc/authservice/config.toml"
    holds "it is upgraded" inside dpkg --install --force-confdef /tmp/authservice.deb
    holds "and keeps the settings" grep -q '^# mine' "$work/root/etc/authservice/config.toml"
    holds "and the user" grep -q alice@example.com <(as_unit authservice users list)
    holds "it is removed" inside dpkg --remove authservice
    holds "without its binary and its unit" is_gone usr/bin/authservice usr/lib/systemd/system/authservice.service usr/share/man/man1/authservice.1.gz
    holds "but not without the settings" test -s "$work/root/etc/authservice/config.toml"
    holds "it is purged" inside dpkg --purge authservice
    holds "with the settings" is_gone etc/authservice
    holds "but not with database and keys" test -s "$work/root/var/lib/authservice/keys/encryption.key"
    holds "dpkg knows it no more" is_unknown
    rm -rf "$work/root"
}

"$root/scripts/setup.sh" deb
mkdir -p "$work"
exec 8>"$work/.lock"
flock 8 # one run at a time in this checkout
lint
[[ $scope != lint ]] || exit 0
build
dress
package
examine
make_root
try_it
say "all of it holds"
