# The images of modelswarm (docs/reference/images.md): docker build --target operator -t REGISTRY/modelswarm/operator:v0.1.0 .
# Targets: operator, agent, loader, and loader-dragonfly, which is the loader with Dragonfly's dfget.
#
# BASE has to be Debian with Python 3.11 or later. The images contain of it what dev/images/inside/root.py picks, no more.
# Everything that is executed here is in dev/images/inside, and works without a network if build/wheels is in the context.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS root
ENV PYTHONHASHSEED=0
COPY dev/images/inside/root.py /inside/
RUN ["python3", "/inside/root.py", "runtime", "/runtime"]

FROM root AS tools
RUN command -v busybox nc.openbsd || { apt-get update && apt-get install --yes --no-install-recommends busybox netcat-openbsd; }
RUN ["python3", "/inside/root.py", "tools", "/tools", "/runtime"]

FROM ${BASE} AS source
ENV PYTHONHASHSEED=0
COPY . /src

FROM source AS operator-packages
RUN ["python3", "/src/dev/images/inside/install.py", "operator"]

FROM source AS agent-packages
RUN ["python3", "/src/dev/images/inside/install.py", "agent"]

FROM source AS loader-packages
RUN ["python3", "/src/dev/images/inside/install.py", "loader"]

FROM source AS loader-dragonfly-packages
RUN ["python3", "/src/dev/images/inside/install.py", "loader,loader-gated"]

# One layer that all images share.
FROM scratch AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
COPY --from=root /runtime/ /
ENV PATH=/opt/modelswarm/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONUTF8=1
LABEL org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.vendor=modelswarm \
      org.opencontainers.image.licenses=Apache-2.0
WORKDIR /
USER 65532:65532

FROM runtime AS operator
COPY --from=operator-packages /opt/modelswarm /opt/modelswarm
LABEL org.opencontainers.image.title="modelswarm operator" \
      org.opencontainers.image.description="Decides which models and images go to which nodes of a cluster, and how."
ENTRYPOINT ["modelswarm"]

# Not root by itself. Its manifests say runAsUser: 0, because the directory on the node belongs to root.
FROM runtime AS agent
COPY --from=tools /tools/ /
COPY --from=agent-packages /opt/modelswarm /opt/modelswarm
LABEL org.opencontainers.image.title="modelswarm agent" \
      org.opencontainers.image.description="Gets models onto a node, over BitTorrent from other nodes where they have them."
ENTRYPOINT ["modelswarm"]

FROM runtime AS loader
COPY --from=loader-packages /opt/modelswarm /opt/modelswarm
LABEL org.opencontainers.image.title="modelswarm loader" \
      org.opencontainers.image.description="The init container that puts a model's files onto a pod's volume."
ENTRYPOINT ["modelswarm", "load"]

# build/dfget: from the image dragonflyoss/client, or built from the crate.
FROM runtime AS loader-dragonfly
COPY build/dfget /usr/local/bin/dfget
COPY --from=loader-dragonfly-packages /opt/modelswarm /opt/modelswarm
LABEL org.opencontainers.image.title="modelswarm loader with dfget" \
      org.opencontainers.image.description="The init container that puts a model's files onto a pod's volume, also from Dragonfly."
ENTRYPOINT ["modelswarm", "load"]
