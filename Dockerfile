# The image: one binary and its configuration, run by nobody in particular on a read-only root file system.
#
#     docker build --tag goodgate .
#     docker run --read-only --publish 8080:8080 --publish 127.0.0.1:9180:9180 \
#         --volume ./goodgate.yaml:/etc/goodgate/goodgate.yaml:ro goodgate
#
# Needs BuildKit (Docker's default since 23.0; DOCKER_BUILDKIT=1 before). The bases are arguments, so that others,
# also locally made ones, can be used: BUILD_IMAGE has Rust and apt, RUN_IMAGE has glibc (no shell is needed).

ARG BUILD_IMAGE=rust:1.95-bookworm
ARG RUN_IMAGE=debian:bookworm-slim
# Where the binary comes from: `build` compiles it here, `prebuilt` takes the file ./goodgate of the context.
ARG BINARY_FROM=build

FROM ${BUILD_IMAGE} AS build
RUN apt-get -q update && apt-get -q install --yes --no-install-recommends cmake gcc libc6-dev make
WORKDIR /source
# Not rust-toolchain.toml: the base has the toolchain, and rustup would fetch rustfmt and clippy for nothing.
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY benches benches
COPY tests tests
COPY conf conf
# Shown by `goodgate_build_info`.
ARG GOODGATE_REVISION=unknown
ENV GOODGATE_REVISION=${GOODGATE_REVISION}
RUN cargo build --release --locked --package goodgate && cp target/release/goodgate /goodgate

FROM scratch AS prebuilt
COPY goodgate /goodgate

FROM ${BINARY_FROM} AS binary

# The authorities that backends with `https://` are verified against.
FROM ${BUILD_IMAGE} AS certificates
RUN test -e /etc/ssl/certs/ca-certificates.crt || \
    { apt-get -q update && apt-get -q install --yes --no-install-recommends ca-certificates; }

FROM ${RUN_IMAGE}
COPY --from=certificates /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=binary --chmod=755 /goodgate /usr/local/bin/goodgate
COPY deploy/container/goodgate.yaml /etc/goodgate/goodgate.yaml
USER 65532:65532
EXPOSE 8080 9180
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=10s --retries=3 CMD ["goodgate", "health"]
ENTRYPOINT ["goodgate"]
CMD ["run"]
