#!/usr/bin/env bash
#
# Builds the documentation as a site, target/book, and checks its links. No network is needed to build, check or read it once the
# tools are there; scripts/setup.sh installs those that are missing (mdBook, lychee).
#
#   scripts/docs.sh               build and check: every link, anchor and image of the site, and of the Markdown files as a
#                                 repository host shows them. Addresses elsewhere are not asked, which would need a network
#   scripts/docs.sh serve [PORT]  build, and show it at http://127.0.0.1:3000

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
readonly root book=$PWD/target/book

./scripts/setup.sh docs
PATH=$root/target/tools/bin:$root/target/tools/docs/bin:$PATH

die() {
    echo "docs: $*" >&2
    exit 1
}

build() {
    python3 scripts/docs.py target/docs
    rm -rf "$book"
    # What mdBook warns of (a tag that is not closed, for one) is a page that is not shown as it was meant.
    mdbook build 2>&1 | tee target/docs.log
    ! grep -q ' WARN ' target/docs.log || die "mdBook warns"
}

check() {
    local lychee=(lychee --offline --no-progress --include-fragments --format detailed)
    # Of the site. A web server has no page for a folder but its index.html.
    find "$book" -name '*.html' -print0 | sort -z | xargs -0 "${lychee[@]}" --root-dir "$book" --index-files index.html
    # As a repository host shows them.
    git ls-files -z '*.md' | xargs -0 "${lychee[@]}" --root-dir "$root"
}

case ${1:-check} in
check)
    build
    check
    ;;
serve)
    build
    exec python3 -m http.server --bind 127.0.0.1 --directory "$book" "${2:-3000}"
    ;;
*)
    echo "docs: unknown: $1 (check or serve)" >&2
    exit 64
    ;;
esac
