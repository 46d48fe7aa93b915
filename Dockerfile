# One node of Ringfort. `docker compose up --build -d` runs three (compose.yaml); docs/book/containers.md tells more.
# No step needs BuildKit, so that older engines and docker-compose 1.29 build it too.

# The compiler that rust-toolchain.toml names, on the Debian release that the binary is to run on.
FROM rust:1.95.0-slim-trixie AS build
LABEL org.ringfort.build=true
WORKDIR /src
COPY . .
# Without names and lines of every function, which are two thirds of the file.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
RUN cargo build --release --locked --package ringfort-cli --bin ringfort

FROM debian:trixie-slim
# A number of its own, so that whoever asks for a user that is not root can check it.
RUN groupadd --gid 10001 ringfort \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/ringfort --no-create-home --shell /usr/sbin/nologin ringfort \
    && install --directory --owner=ringfort --group=ringfort --mode=0750 /var/lib/ringfort
COPY --from=build /src/target/release/ringfort /usr/local/bin/ringfort
USER 10001:10001

# In a container a node listens on all of the container's addresses. That takes a certificate (--tls-cert), as compose.yaml gives each node
# one, or --insecure; both are left to whoever runs it.
ENV RINGFORT_START_ADDR=0.0.0.0:50051 \
    RINGFORT_START_DATA_DIR=/var/lib/ringfort/data
# The data directory is one below, since a volume may come with something of its own in it (lost+found).
VOLUME /var/lib/ringfort
EXPOSE 50051 6666
# A node that is asked to stop hands its leaderships over first, which takes it five seconds at most.
STOPSIGNAL SIGTERM
# Healthy: it serves every shard that it has. A node of a new cluster does so when it has met the others. The check is about this
# container's node, whatever nodes RINGFORT_ADDR may list for other commands. With TLS it needs RINGFORT_CA.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ringfort health --timeout 2s --addr "${RINGFORT_HEALTH_ADDR:-127.0.0.1:50051}"
ENTRYPOINT ["ringfort"]
CMD ["start"]
