# The image: one static program and nothing else. `make image` builds it, README says how to run it.
ARG RUST_VERSION=1.95

# The sources emptied: what is left changes only when a dependency does, so that compiling those is
# remembered between builds.
FROM rust:${RUST_VERSION}-bookworm AS manifests
WORKDIR /src
COPY . .
RUN find . -name '*.rs' -exec sh -c 'for file; do echo "fn main() { }" >"$file"; done' sh {} +

FROM rust:${RUST_VERSION}-bookworm AS builder
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends libcap2-bin \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Beside the default features: every backend, so that SWIFTLET_BACKEND has the choice.
ARG FEATURES="io-uring,af-xdp"
ENV CARGO_BUILD_TARGET=host-tuple \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    CARGO_TARGET_DIR=/target \
    RUSTFLAGS="-C target-feature=+crt-static"
COPY --from=manifests /src .
RUN cargo build --release --locked -p swiftlet --features "${FEATURES}"
COPY . .
# Cargo goes by the time of a file, and the emptied ones are newer.
RUN find . -name '*.rs' -exec touch {} + \
    && cargo build --release --locked -p swiftlet --features "${FEATURES}" \
    && install -D --target-directory=/image /target/*/release/swiftlet \
    && /image/swiftlet --version
# For ports below 1024 and for af-xdp without root. Only permitted, not effective: the program takes up at start
# what it may have and needs and drops the rest, and an engine that withholds them (--cap-drop ALL) can still
# run the program.
RUN setcap cap_net_bind_service,cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock=+p /image/swiftlet

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Swiftlet" \
      org.opencontainers.image.description="A DNS resolver that answers known names at the cost of little more than echoing the packet" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The directory, not the file: of a single file, the old builder of Docker Engine drops the capability.
COPY --from=builder /image/ /
ENV SWIFTLET_LISTEN=0.0.0.0:53,[::]:53 \
    SWIFTLET_HTTP=0.0.0.0:8053 \
    SWIFTLET_LAMEDUCK_MS=1000
USER 65532:65532
EXPOSE 53/udp 53/tcp 8053/tcp
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/swiftlet", "health"]
ENTRYPOINT ["/swiftlet"]
