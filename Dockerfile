# One target per image: nothing but one static binary, so that there is nothing else to patch, to scan or to abuse.
#
# The binaries are compiled outside and lie in the build context: `cargo xtask image` makes them (static, in dist/) and
# then builds every target. By hand: `docker build --target operator dist -f Dockerfile`.

# What all images are, in the annotations of the OCI image specification. Stages inherit labels.
FROM scratch AS base
ARG VERSION=unknown
LABEL org.opencontainers.image.title="StoppableContainer" \
      org.opencontainers.image.description="Stops a container on Kubernetes and starts it again with its whole root filesystem kept" \
      org.opencontainers.image.source="https://github.com/xtlsoft/stoppablecontainer" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"

FROM base AS operator
COPY operator /operator
USER 65532:65532
ENTRYPOINT ["/operator"]

FROM base AS webhook-certs
COPY webhook-certs /webhook-certs
USER 65532:65532
ENTRYPOINT ["/webhook-certs"]

# Root, as it mounts. It carries the wrapper too, to put it into the volumes of pods.
FROM base AS node-agent
COPY node-agent /node-agent
COPY exec-wrapper /exec-wrapper
ENTRYPOINT ["/node-agent"]

# No user: the pod says who runs it. The runtime takes the signal that stops a container from its image alone, so there
# is one variant of this image per signal, and they differ in nothing else.
FROM base AS exec-wrapper
ARG STOP_SIGNAL=SIGTERM
COPY exec-wrapper /exec-wrapper
STOPSIGNAL ${STOP_SIGNAL}
ENTRYPOINT ["/exec-wrapper"]
