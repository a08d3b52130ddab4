# graphsys in a container, from the wheel that `make wheel` built.
#
#   CPU:   docker build -t graphsys .
#   CUDA:  docker build -t graphsys:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#   Run:   docker run --read-only --tmpfs /tmp -v /data:/data -p 8080:8080 -e GRAPHSYS_TOKEN graphsys /data/emb.gs

FROM python:3.11.14-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# pymetis may have no wheel for the platform, and is compiled then.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

RUN python -m venv /opt/graphsys
ENV PATH=/opt/graphsys/bin:$PATH

COPY constraints.txt dist/graphsys-*.whl /build/

# torch goes first, by its pin and from its own index, which has a build for the processor or for a version of CUDA.
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "$(grep '^torch==' /build/constraints.txt)"

RUN pip install --no-cache-dir --constraint /build/constraints.txt /build/graphsys-*.whl

FROM python:3.11.14-slim-bookworm

# KubeRay's probes call wget.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --uid 10001 --create-home graphsys

COPY --from=build /opt/graphsys /opt/graphsys

# KubeRay starts Ray in a login shell, which forgets PATH.
RUN ln -s /opt/graphsys/bin/graphsys /opt/graphsys/bin/ray /usr/local/bin/

ENV PATH=/opt/graphsys/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/tmp/numba RAY_USAGE_STATS_ENABLED=0

USER 10001
WORKDIR /home/graphsys
EXPOSE 8080

HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health/live', timeout=2)"]

ENTRYPOINT ["graphsys", "serve", "--host", "0.0.0.0", "--port", "8080"]
