# Short names for the usual commands. `just` is not needed: each line can be typed by hand.

# List the recipes.
default:
    @just --list

# Everything a change must pass before it is submitted.
check: && test
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items
    if command -v cargo-deny >/dev/null; then cargo deny --locked check licenses bans sources; else echo "cargo-deny is not installed: skipped here, run by .ci/run"; fi

# Format the code.
fmt:
    cargo fmt --all

# Build the documentation as a site and check its links: `just docs serve` shows it.
docs *args:
    ./scripts/docs.sh {{ args }}

# Run the tests on SQLite and PostgreSQL; arguments go to `cargo test`.
test *args:
    ./scripts/test.sh {{ args }}

# Test the Helm chart without a cluster; arguments go to pytest.
chart *args:
    ./scripts/chart.sh {{ args }}

# Install the chart on a real Kubernetes (compiles one the first time); arguments go to pytest.
cluster *args:
    ./scripts/cluster.sh {{ args }}

# Break a running server: `just chaos list`, `just chaos run all --short`.
chaos *args:
    ./scripts/chaos.sh {{ args }}

# Fuzz what reads strangers' bytes: `just fuzz 60 token` for a minute; all targets when none is named.
fuzz *args:
    ./scripts/fuzz.sh {{ args }}

# Start the server with the default settings.
run *args:
    cargo run --locked -- serve {{ args }}

# Write docs/openapi.json, docs/api-reference.md and docs/configuration.md anew.
openapi:
    UPDATE=1 ./scripts/test.sh --test it contract

# Write the bill of materials (CycloneDX), by default to target/sbom/authservice.cdx.json.
sbom *args:
    ./scripts/sbom.sh {{ args }}

# Build the image and run it: `just image`, `just image release`, `just image lint`.
image *args:
    ./scripts/image.sh {{ args }}

# Build the Debian package and try it in a throw-away root: `just deb release`, `just deb lint`.
deb *args:
    ./scripts/deb.sh {{ args }}

# What continuous integration runs.
ci:
    ./.ci/run

# Measure what requests cost, in CPU time, beside the cost of their parts; arguments go to `bench`.
bench *args:
    ./scripts/bench.sh {{ args }}
