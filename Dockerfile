# syntax=docker/dockerfile:1.7
# One image with every program of Meed; docker-compose.yml says which of them a container runs.

FROM rust:1.95.0-bookworm AS chef
# For librdkafka, whose TLS is OpenSSL's.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
RUN cargo install --locked --version 0.1.78 cargo-chef
WORKDIR /src
# Release builds for the image carry no debug information: it would be most of their size.
ENV CARGO_PROFILE_RELEASE_DEBUG=0

FROM chef AS recipe
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
# The recipe changes only with the manifests, so this layer, which takes most of the time, outlives changes to the code.
COPY --from=recipe /src/recipe.json recipe.json
RUN cargo chef cook --release --workspace --bins --recipe-path recipe.json
COPY . .
# What `--version`, metrics and workers tell of themselves; give the commit.
ARG MEED_BUILD_ID=docker
ENV MEED_BUILD_ID=${MEED_BUILD_ID}
RUN cargo build --release --locked --workspace --bins

FROM debian:12.12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin meed
COPY --from=build \
    /src/target/release/meed \
    /src/target/release/meed-api \
    /src/target/release/meed-worker \
    /src/target/release/meed-partners \
    /src/target/release/meed-acknowledger \
    /src/target/release/demo \
    /usr/local/bin/
COPY --chmod=755 deploy/docker/healthy /usr/local/bin/healthy
WORKDIR /etc/meed
COPY meed.toml programme.toml ./
COPY deploy/kafka/topics.toml deploy/kafka/topics.toml
ENV MEED_CONFIG=/etc/meed/meed.toml
USER 10001:10001
CMD ["meed", "--help"]
