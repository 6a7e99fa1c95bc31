#!/usr/bin/env bash
#
# Writes the bill of materials of the server: CycloneDX 1.6, JSON, by default to target/sbom/authservice.cdx.json.
#
#   scripts/sbom.sh [FILE]    write it
#   scripts/sbom.sh check     write it to the default place, check it, and let the official library judge its form
#
# It lists every crate that is linked into the binary, and what those crates bring along that no Rust tool sees: OpenSSL,
# SQLite, Swagger UI, Redoc. Crates that only take part in the build (macros, build scripts) are listed with the scope
# "excluded". Nothing is installed for it but Python 3; the same sources give the same bytes.
#
#   SBOM_TARGET          platform, when it is not this machine's: aarch64-unknown-linux-gnu
#   SOURCE_DATE_EPOCH    time of the bill, when it is not the time of the last commit

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly validator="cyclonedx-python-lib[json-validation]==11.12.0" tools=target/tools/cyclonedx

say() { printf 'sbom: %s\n' "$*" >&2; }

install() {
    timeout 120 "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --retries 1 "$validator"
}

# The form, judged by CycloneDX's own library with its schemas. It comes from PyPI, which may be out of reach.
validate() {
    if [[ ! -x $tools/bin/python ]] || ! "$tools/bin/python" -m pip show --quiet cyclonedx-python-lib 2>/dev/null; then
        rm -rf "$tools"
        if ! { python3 -m venv "$tools" && install; }; then
            rm -rf "$tools"
            say "schema: NOT CHECKED, $validator cannot be installed: is the package index reachable?"
            return 0
        fi
    fi
    "$tools/bin/python" - "$1" <<'PYTHON'
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(f"sbom: not CycloneDX 1.6: {fault}" if fault else None)
PYTHON
    say "schema: CycloneDX 1.6"
}

command -v python3 >/dev/null || {
    say "python3 is missing"
    exit 1
}
target=${SBOM_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
if [[ ${1:-} == check ]]; then
    python3 scripts/sbom.py "$target" target/sbom/authservice.cdx.json check
    validate target/sbom/authservice.cdx.json
else
    python3 scripts/sbom.py "$target" "${1:-target/sbom/authservice.cdx.json}"
fi
