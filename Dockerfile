# The image: one executable and the shared libraries it is linked with; no shell, not root, nothing written outside of volumes.
# `docs/image.md` says how to build it and how to hand it to kind, k3d and minikube.
FROM rust:1.95.0-bookworm AS build
# Features of the package drover, kafka-tls for example.
ARG FEATURES=""
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY services services
COPY proto proto
COPY examples/rust examples/rust
COPY loadtest loadtest
COPY tests tests
COPY xtask xtask
COPY deploy deploy
# Kept from build to build; of each architecture its own.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target,sharing=locked \
    CARGO_TARGET_DIR="/target/$(uname -m)" CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    cargo build --release --locked --package drover --features "$FEATURES" \
    && deploy/image/assemble "/target/$(uname -m)/release/drover" /image

# The load generator, with --target load.
FROM build AS build-load
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target,sharing=locked \
    CARGO_TARGET_DIR="/target/$(uname -m)" CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    cargo build --release --locked --package drover-load \
    && deploy/image/assemble "/target/$(uname -m)/release/drover-load" /image-load drover-load

FROM scratch AS load
COPY --from=build-load /image-load/ /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/drover-load"]

FROM scratch
COPY --from=build /image/ /
COPY --from=build --chown=65532:65532 /image/var/lib/drover /var/lib/drover
USER 65532:65532
# MQTT, MQTT over TLS, HTTP, HTTP over TLS, CoAP, CoAP over DTLS, metrics.
EXPOSE 1883 8883 8080 8443 5683/udp 5684/udp 9464
ENTRYPOINT ["/usr/local/bin/drover"]
