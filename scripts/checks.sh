# shellcheck shell=bash
#
# What scripts say while they check something. They source it, and have a folder $work; a script NAME.sh that cannot run on this
# machine, or not all of it, ends well, unless NAME=required.

: "${work:?}"
script=$(basename "$0" .sh)

say() { printf '%s: %s\n' "$script" "$*" >&2; }
die() {
    say "FAILED: $*"
    exit 1
}
skip() {
    local required=${script^^}
    [[ ${!required:-} != required ]] || die "$1"
    say "NOT RUN: $1"
}
not_run() {
    skip "$1"
    exit 0
}

# What else there is to see when a check fails: scripts that know more say it their own way.
explain() { :; }

# Runs a check and says what holds. The commands after the sentence must succeed.
holds() {
    local sentence=$1
    shift
    "$@" >"$work/check.log" 2>&1 || {
        cat "$work/check.log" >&2
        explain >&2
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

prints() {
    local expected=$1 text
    shift
    text=$("$@") || return
    printf '%s\n' "$text"
    [[ $text == "$expected" ]]
}

# Tries a command for half a minute.
retry() {
    local attempt
    for attempt in {1..300}; do
        if "$@"; then return; fi
        sleep 0.1
    done
    echo "gave up after $attempt attempts"
    return 1
}
