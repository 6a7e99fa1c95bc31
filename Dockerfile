# The image: one binary on distroless Debian, without a shell, as user 65532.
#
#   docker build -t authservice .
#
# Pin the bases by digest with --build-arg RUST_IMAGE=…@sha256:… and RUNTIME_IMAGE=…@sha256:… (both are Debian 13: the binary
# links the OpenSSL of the image that it runs in). The same base and binary give the same layers every time; with
# SOURCE_DATE_EPOCH=0 in its environment and --provenance=false `docker build` gives the same image.

ARG RUST_IMAGE=rust:1.95-slim-trixie
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian13:nonroot

FROM ${RUST_IMAGE} AS build
# Debian's own OpenSSL (docs/decisions/0012): it is mended by building again on a newer base.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# What is compiled stays in the caches of the builder, so only what changed is compiled again.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --no-default-features --bin authservice \
    && install -D target/release/authservice /out/usr/local/bin/authservice \
    && install -d -m 0700 /out/var/lib/authservice \
    && find /out -exec touch --date=@0 {} +

FROM ${RUNTIME_IMAGE} AS runtime
ARG RUNTIME_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="authservice" \
    org.opencontainers.image.description="A token server: sign in over REST, short-lived JWT access tokens, rotating refresh tokens, JWKS" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.base.name="${RUNTIME_IMAGE}"
# With the folders above them: a folder that BuildKit makes has the time of the build, and the mode of one that is itself the target
# is not BuildKit's to set.
COPY --from=build --chown=0:0 /out/usr/ /usr/
COPY --from=build --chown=65532:65532 /out/var/lib/ /var/lib/
# A number, which orchestrators can tell from root. The SQLite file and keys/ are made in the folder below, unless settings say
# otherwise; on PostgreSQL with a mounted key-encryption key nothing is written.
USER 65532:65532
WORKDIR /var/lib/authservice
VOLUME /var/lib/authservice
# The seed's name, so that AUTHSERVICE__SERVER__HOST still overrides it.
ENV SERVICE_HOST=0.0.0.0
# Metrics and probes, for those who run it: reached from the network of the container, not published.
ENV AUTHSERVICE__ADMIN__HOST=0.0.0.0
EXPOSE 9998 9999
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/authservice", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/authservice"]
CMD ["serve"]
