#!/usr/bin/env bash
#
# Runs a command with a Docker daemon of its own:
#
#   ./scripts/docker.sh docker info
#   ./scripts/docker.sh bash
#
# Docker is Debian 13's: dockerd with BuildKit, and the buildx and compose plugins, in a root of their own that has this checkout at the
# same place as here, and in namespaces of their own (mounts, network, processes). So this machine's Docker, its images and its ports are
# left alone, and all of it ends with the command, apart from images and the builder's caches, which stay in target/docker.
#
# Needs root, Debian packages (scripts/setup.sh image) and a machine that may run containers. Where it may not, the script says
# so and ends well, unless DOCKER=required.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root work=$root/target/docker
# Another checkout's daemon has one of its own.
cgroup=authservice-docker-$(cksum <<<"$root" | cut -d ' ' -f 1)
readonly cgroup
readonly packages=docker.io,docker-cli,docker-buildx,docker-compose,iptables,iproute2,ca-certificates,curl,openssl,python3-venv

# shellcheck source=scripts/checks.sh
source "$root/scripts/checks.sh"

machine() {
    [[ $(cat "$work/machine.packages" 2>/dev/null) != "$packages" ]] || return 0
    say "making a root of Debian 13 with Docker"
    rm -rf --one-file-system "$work/machine.part" "$work/machine"
    # What it mounts goes with it, also when it is killed.
    unshare --mount mmdebstrap --quiet --variant=minbase --include="$packages" --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' trixie "$work/machine.part" ||
        die "mmdebstrap cannot make a root of $packages"
    mv "$work/machine.part" "$work/machine"
    echo "$packages" >"$work/machine.packages"
}

# The foreground is the command's, which may be a shell.
enter() {
    local slirp status=0
    rm -f "$work/inside"
    way_out &
    slirp=$!
    INSIDE=mounts setpriv --pdeathsig KILL unshare --mount --net "$root/scripts/docker.sh" "$@" || status=$?
    kill "$slirp" 2>/dev/null || true
    # The groups of processes outlive the namespaces.
    find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2>/dev/null || true
    exit "$status"
}

# For the new network, when it is there: to the crates and to PyPI.
way_out() {
    until [[ -s $work/inside ]]; do sleep 0.05; done
    exec setpriv --pdeathsig KILL slirp4netns --configure --mtu 65520 --disable-host-loopback "$(<"$work/inside")" tap0 >"$work/slirp.log" 2>&1
}

mounts() {
    local machine=$work/machine certificates=/etc/ssl/certs/ca-certificates.crt attempt
    echo $$ >"$work/inside"
    mkdir -p "$work/data" "$machine/var/lib/docker" "$machine$root"
    mount --bind "$machine" "$machine" || not_run "this machine lets nothing be mounted"
    mount --rbind /dev "$machine/dev"
    mount --rbind /sys "$machine/sys"
    mount -t tmpfs tmpfs "$machine/run"
    mount -t tmpfs tmpfs "$machine/tmp"
    mount --bind "$work/data" "$machine/var/lib/docker"
    mount --rbind "$root" "$machine$root"
    # A network may have an authority of its own.
    [[ ! -s $certificates ]] || mount --bind "$certificates" "$machine$certificates"
    echo '127.0.0.1 localhost' >"$machine/etc/hosts"
    # That of slirp4netns.
    echo 'nameserver 10.0.2.3' >"$machine/etc/resolv.conf"
    ip link set lo up
    for attempt in {1..50}; do
        if [[ $(ip route show default) ]]; then break; fi
        sleep 0.1
    done
    [[ $attempt -lt 50 ]] || say "no way out of this network: $(tail -n 1 "$work/slirp.log")"
    cd "$machine"
    pivot_root . mnt
    exec env -i INSIDE=processes DOCKER="${DOCKER:-}" TERM="${TERM:-dumb}" HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin PIP_CERT=$certificates \
        unshare --pid --fork --kill-child --mount-proc "$root/scripts/docker.sh" "$@"
}

daemon() {
    umount --lazy /mnt
    # In a container, it says: or it would load its AppArmor profile into this machine.
    container=unshare dockerd --cgroup-parent "/$cgroup" >"$work/dockerd.log" 2>&1 &
    dockerd=$!
    trap clean EXIT
    retry has_started >/dev/null 2>&1 || true
    docker info >/dev/null 2>&1 || not_run "dockerd does not run on this machine: $(tail -n 3 "$work/dockerd.log")"
    say "Docker $(docker version --format '{{.Server.Version}}'), compose $(docker compose version --short)"
    leave_nothing
    cd "$root"
    "$@"
}

# Or has failed.
has_started() { docker info || ! kill -0 "$dockerd"; }

leave_nothing() {
    docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes
    docker network prune --force
    docker volume prune --force --all
    docker image prune --force
    docker builder prune --force --keep-storage 8GB
} >/dev/null

clean() {
    leave_nothing 2>/dev/null || true
    kill "$dockerd" 2>/dev/null || true
    wait "$dockerd" || true
}

if [[ ${INSIDE:-} == mounts ]]; then
    mounts "$@"
elif [[ ${INSIDE:-} == processes ]]; then
    unset INSIDE
    daemon "$@"
else
    [[ $# -gt 0 ]] || die "which command?"
    [[ $EUID -eq 0 ]] || not_run "a Docker daemon needs root"
    unshare --mount --net --pid --fork true 2>/dev/null || not_run "this machine has no namespaces to give"
    "$root/scripts/setup.sh" image
    mkdir -p "$work"
    exec 7>"$work/.lock"
    flock 7 # one daemon at a time in this checkout
    machine
    enter "$@"
fi
