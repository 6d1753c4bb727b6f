# The backend: NVIDIA Triton with only the Python backend, torch, and the project's models and weights.
#
#   docker buildx imagetools inspect nvcr.io/nvidia/tritonserver:26.09-py3 --format '{{.Manifest.Digest}}'
#   docker build -f docker/triton.Dockerfile --build-arg TRITON_DIGEST=sha256:... -t REGISTRY/superres-triton .
#
# 26.09 or later. docs/how-to/operate.md has the reasons and the differences from version 2.51, which tests use.
# A node pulls nothing of Triton's image: the last stage copies what is needed (docker/triton/collect) to Ubuntu, as NVIDIA's
# own images without CUDA do. torch has its own CUDA libraries, and the driver's come from the host.
# docs/reference/images.md has the sizes.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.09-py3
ARG TRITON_DIGEST=
# The same release as Triton's image, so that the C library is the same: check-image fails if it is too old. Several public
# projects pin this digest; it was not pulled here.
ARG UBUNTU_IMAGE=docker.io/library/ubuntu:24.04@sha256:4fbb8e6a8395de5a7550b33509421a2bafbc0aab6c06ba2cef9ebffbc7092d90
FROM ${TRITON_IMAGE}${TRITON_DIGEST:+@}${TRITON_DIGEST} AS triton
ARG TRITON_IMAGE
ARG TRITON_DIGEST
ARG ALLOW_UNPINNED=no
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# hadolint ignore=DL3002
USER 0
RUN if [[ -z "$TRITON_DIGEST" && "$ALLOW_UNPINNED" != yes ]]; then \
      echo "TRITON_DIGEST is empty, and the image behind a tag can change. Look up the digest of $TRITON_IMAGE (see the first" \
           "lines of docker/triton.Dockerfile) and pass --build-arg TRITON_DIGEST=sha256:... For development only," \
           "pass --build-arg ALLOW_UNPINNED=yes." >&2; \
      exit 1; \
    fi

FROM triton AS server
COPY --chmod=0755 docker/triton/collect /tmp/
RUN python3 /tmp/collect /layers/server

FROM triton AS build
WORKDIR /opt/superres
# A separate virtual environment with its own numpy and torch. Triton's stub finds it as python3 on PATH.
# TORCH=cuda installs the build of requirements.lock, checked by hash; TORCH=cpu the build of the same version that pip is
# configured with (a pip.conf mounted into the build).
# The import compiles the modules that a start needs: without that it takes 7.8 instead of 3.2 s of CPU time. torch's CUDA
# libraries become a layer of their own, by hard links, which is pulled next to that of torch.
ARG TORCH=cuda
COPY requirements.lock ./
COPY scripts/lock.py scripts/
COPY docker/triton/remove-unused docker/triton/leave-out.txt scripts/
RUN python3 scripts/lock.py select tools >tools.txt && python3 scripts/lock.py select triton >triton.txt \
    && python3 -m venv tools && python3 -m venv --without-pip venv \
    && tools/bin/python3 -m pip install --no-cache-dir --require-hashes --no-deps -r tools.txt \
    && torch=$(TORCH=$TORCH tools/bin/python3 scripts/lock.py torch) \
    && if [ "$torch" = locked ]; then python3 scripts/lock.py select cuda; else echo "$torch"; fi >torch.txt \
    && for list in triton.txt torch.txt; do \
         tools/bin/python3 -m pip --python venv/bin/python3 install --no-cache-dir --no-compile --no-deps -r "$list"; \
       done \
    && site=$(echo venv/lib/python3.*/site-packages) && echo /opt/superres >"$site/superres.pth" \
    && mkdir -p language && if [ -d "$site/triton" ]; then cp -al "$site"/triton* language/; fi \
    && python3 scripts/remove-unused "$site" scripts/leave-out.txt \
    && venv/bin/python3 -c "import PIL.Image, numpy, safetensors.torch, torch" \
    && mkdir -p /layers/packages/opt/superres "/layers/cuda/opt/superres/$site" \
    && cp -al venv /layers/packages/opt/superres/ \
    && if [ -d "$site/nvidia" ]; then mv "/layers/packages/opt/superres/$site/nvidia" "/layers/cuda/opt/superres/$site/"; fi \
    && rm -r tools tools.txt triton.txt torch.txt scripts requirements.lock
COPY preprocessing preprocessing
COPY swinir swinir
COPY model_repository model_repository
# The compiled network starts without torch and is twice as fast on a CPU. It needs a C compiler in Triton's image, and runs
# only on the kind of processor that built the image. Otherwise the network runs in PyTorch, and Triton's log says so.
# With a CUDA build of torch: the kernels of a GPU's blocks, for each compute capability with bfloat16. Nothing is compiled at a
# start, so the Triton language itself, 721 MB, stays out of the image.
RUN venv/bin/python3 -m swinir.network.fused \
    && PYTHONPATH=language venv/bin/python3 -m swinir.network.cuda.compile
# Weights in addition to the bundled compact variants: files in weights/ of the checkout, and variants that are fetched now and
# checked by hash: --build-arg VARIANTS="lightweight_x4 classical_x4". Offer them with the gateway's SUPERRES_VARIANTS. By default
# nothing is fetched, so a build needs only the package index.
ARG VARIANTS=
COPY docker/triton/weights.md weight[s] weights/
RUN for name in $VARIANTS; do \
      venv/bin/python3 -c "import pathlib, sys, swinir.weights.fetch as f; print(f.fetch(sys.argv[1], pathlib.Path('weights')))" "$name"; \
    done && rm -rf weights/downloads
COPY --chmod=0755 docker/triton/start docker/triton/alive docker/triton/open-streams docker/triton/check-image bin/
# Triton needs a version directory for an ensemble, and git does not store empty directories.
RUN mkdir -p model_repository/upscale/1 /layers/weights/opt/superres /layers/project/opt/superres \
    && python3 -m compileall -q preprocessing swinir \
    && chmod -R a+rX,go-w preprocessing swinir model_repository weights bin \
    && cp -a weights /layers/weights/opt/superres/ \
    && cp -a preprocessing swinir model_repository bin /layers/project/opt/superres/

FROM ${UBUNTU_IMAGE}
# What changes least comes first: an upgrade of this project pulls only the last layers, 8 MB.
COPY --from=server /layers/server/ /
COPY --from=build /layers/cuda/ /
COPY --from=build /layers/packages/ /
COPY --from=build /layers/weights/ /
COPY --from=build /layers/project/ /
# Where the driver is mounted by clusters without NVIDIA's container toolkit (GKE), and what the toolkit reads. CUDA 13.0 is
# that of torch: with an older driver the container does not start, and the message names both versions.
ENV PATH=/opt/superres/venv/bin:$PATH LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility NVIDIA_REQUIRE_CUDA="cuda>=13.0" \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1 \
    MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=8388608 MALLOC_TRIM_THRESHOLD_=33554432 \
    SUPERRES_WEIGHTS_DIR=/opt/superres/weights
# The libraries of Triton and Python come before those of the base.
RUN printf '%s\n' /opt/tritonserver/lib /opt/superres/lib >/etc/ld.so.conf.d/000-superres.conf && ldconfig \
    && /opt/superres/bin/check-image
WORKDIR /opt/superres
# gRPC; HTTP listens on loopback only
EXPOSE 8001
USER 10001:10001
# `start` replaces itself with tritonserver, which therefore receives SIGTERM.
ENTRYPOINT ["/opt/superres/bin/start"]
HEALTHCHECK --interval=10s --timeout=15s --start-period=120s --retries=3 CMD ["/opt/superres/bin/alive"]
