# A node of a Ray cluster that serves models. Build it from the root of the repository;
# docs/kubernetes.md has the commands.
ARG PYTHON=python:3.12-slim-bookworm

FROM ${PYTHON} AS wheel
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir -c constraints.txt setuptools
COPY handler handler
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel .

FROM ${PYTHON}
# CUDA: https://download.pytorch.org/whl/cu128. These wheels contain the CUDA libraries; the driver
# comes from the node.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# KubeRay starts Ray in a shell, whose PATH contains /usr/local/bin, where pip installs.
RUN --mount=type=bind,source=constraints-ray.txt,target=/constraints-ray.txt \
    grep '^torch' /constraints-ray.txt > /tmp/torch.txt \
    && pip install --no-cache-dir --no-deps --index-url "${TORCH_INDEX}" -r /tmp/torch.txt \
    && rm /tmp/torch.txt
RUN --mount=type=bind,source=constraints-ray.txt,target=/constraints-ray.txt \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir -r /constraints-ray.txt "$(echo /wheel/d2serve-*.whl)[asgi,ray,aws]" \
    && useradd --uid 1000 --user-group --create-home ray
ENV PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /home/ray
# KubeRay gives each container its own command.
CMD ["ray", "start", "--head", "--block"]
