# The backend: NVIDIA Triton with only the Python backend, torch, and the project's models and weights.
#
#   docker buildx imagetools inspect nvcr.io/nvidia/tritonserver:26.09-py3 --format '{{.Manifest.Digest}}'
#   docker build -f docker/triton.Dockerfile --build-arg TRITON_DIGEST=sha256:... -t REGISTRY/superres-triton .
#
# 26.09 or later. docs/how-to/operate.md has the reasons and the differences from version 2.51, which tests use.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.09-py3
ARG TRITON_DIGEST=
FROM ${TRITON_IMAGE}${TRITON_DIGEST:+@}${TRITON_DIGEST}
ARG TRITON_IMAGE
ARG TRITON_DIGEST
ARG ALLOW_UNPINNED=no
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
USER 0
RUN if [[ -z "$TRITON_DIGEST" && "$ALLOW_UNPINNED" != yes ]]; then \
      echo "TRITON_DIGEST is empty, and the image behind a tag can change. Look up the digest of $TRITON_IMAGE (see the first" \
           "lines of docker/triton.Dockerfile) and pass --build-arg TRITON_DIGEST=sha256:... For development only," \
           "pass --build-arg ALLOW_UNPINNED=yes." >&2; \
      exit 1; \
    fi
# Leaves only the Python backend to load. The image does not get smaller, because earlier layers stay. For a smaller image build a
# base with NVIDIA's compose.py (only the Python backend) and pass it as TRITON_IMAGE.
RUN find /opt/tritonserver/backends -mindepth 1 -maxdepth 1 ! -name python -exec rm -rf {} +
WORKDIR /opt/superres
# A separate virtual environment with its own numpy and torch. Triton's stub finds it as python3 on PATH.
# TORCH=cuda installs the build of requirements.lock, checked by hash; TORCH=cpu the build of the same version that pip is
# configured with (a pip.conf mounted into the build).
ARG TORCH=cuda
COPY requirements.lock ./
COPY scripts/lock.py scripts/
RUN python3 scripts/lock.py select tools >tools.txt && python3 scripts/lock.py select triton >triton.txt \
    && python3 -m venv tools && python3 -m venv --without-pip venv \
    && tools/bin/python3 -m pip install --no-cache-dir --require-hashes --no-deps -r tools.txt \
    && torch=$(TORCH=$TORCH tools/bin/python3 scripts/lock.py torch) \
    && if [ "$torch" = locked ]; then python3 scripts/lock.py select cuda; else echo "$torch"; fi >torch.txt \
    && for list in triton.txt torch.txt; do \
         tools/bin/python3 -m pip --python venv/bin/python3 install --no-cache-dir --no-compile --no-deps -r "$list"; \
       done \
    && rm -r tools tools.txt triton.txt torch.txt scripts requirements.lock \
    && for site in venv/lib/python3.*/site-packages; do echo /opt/superres >"$site/superres.pth"; done
COPY preprocessing preprocessing
COPY swinir swinir
COPY model_repository model_repository
# The fused block doubles the speed on a CPU. It needs a C compiler in the base image, and runs only on the kind of processor that
# built the image. Otherwise blocks run in PyTorch, and Triton's log says so.
RUN venv/bin/python3 -m swinir.network.fused
# Weights in addition to the bundled compact variants: files in weights/ of the checkout, and variants that are fetched now and
# checked by hash: --build-arg VARIANTS="lightweight_x4 classical_x4". Offer them with the gateway's SUPERRES_VARIANTS. By default
# nothing is fetched, so a build needs only the package index.
ARG VARIANTS=
COPY docker/triton/weights.md weight[s] weights/
RUN for name in $VARIANTS; do \
      venv/bin/python3 -c "import pathlib, sys, swinir.weights.fetch as f; print(f.fetch(sys.argv[1], pathlib.Path('weights')))" "$name"; \
    done && rm -rf weights/downloads
COPY --chmod=0755 docker/triton/start docker/triton/alive docker/triton/open-streams bin/
# Triton needs a version directory for an ensemble, and git does not store empty directories.
RUN mkdir -p model_repository/upscale/1 && python3 -m compileall -q preprocessing swinir \
    && chmod -R a+rX,go-w preprocessing swinir model_repository weights bin
ENV PATH=/opt/superres/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp OMP_WAIT_POLICY=passive \
    SUPERRES_WEIGHTS_DIR=/opt/superres/weights
# gRPC; HTTP listens on loopback only
EXPOSE 8001
USER 10001:10001
# `start` replaces itself with tritonserver, which therefore receives SIGTERM.
ENTRYPOINT ["/opt/superres/bin/start"]
HEALTHCHECK --interval=10s --timeout=15s --start-period=120s --retries=3 CMD ["/opt/superres/bin/alive"]
