# The service as an image, with BuildKit, from the root of the repository:
#
#     docker build --tag mainstay:0.1.0 .
#
# The binary needs glibc, libgcc and CA certificates (for mail and PostgreSQL over TLS). The shell of the base image is
# there for the health check alone.

ARG DEBIAN=bookworm

# `rust-version` of Cargo.toml; scripts/check-deploy compares them.
FROM rust:1.95-slim-${DEBIAN} AS build
WORKDIR /src
COPY . .
# The caches hold what was fetched and compiled before, so a change of our code compiles our code. The binary is copied
# out, because a cache is no part of the layer.
RUN --mount=type=cache,id=mainstay-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=mainstay-target,target=/src/target,sharing=locked \
    cargo build --release --locked --package mainstay-app --bin mainstay \
    && install -D --mode=0755 target/release/mainstay /out/mainstay

FROM debian:${DEBIAN}-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 mainstay \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/mainstay --shell /usr/sbin/nologin mainstay \
    && install -d --owner=10001 --group=10001 --mode=0700 /var/lib/mainstay
COPY LICENSE-MIT LICENSE-APACHE NOTICE /usr/share/doc/mainstay/
COPY licenses /usr/share/doc/mainstay/licenses
COPY --from=build /out/mainstay /usr/local/bin/mainstay

# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /var/lib/mainstay
# HOST: a container is reached from outside of its own loopback. MANAGEMENT_ADDR stays there unless it is set.
ENV APP_ENV=production \
    HOST=0.0.0.0 \
    DATA_DIR=/var/lib/mainstay
EXPOSE 3000
STOPSIGNAL SIGTERM

# Unhealthy while it starts and while it drains, whatever the database does: what /health/ready says.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["bash", "-c", \
    "exec 3<>\"/dev/tcp/127.0.0.1/${PORT:-3000}\" && printf 'GET /health/ready HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r -t 2 _ status _ <&3 && [[ $status == 200 ]]"]

ENTRYPOINT ["mainstay"]
CMD ["serve"]
