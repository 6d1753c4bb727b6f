# The hidden backend: NVIDIA Triton with the Python backend alone, torch, the project's models and weights.
#
#   docker buildx imagetools inspect nvcr.io/nvidia/tritonserver:26.07-py3 --format '{{.Manifest.Digest}}'
#   docker build -f docker/triton.Dockerfile --build-arg TRITON_DIGEST=sha256:... -t REGISTRY/superres-triton .
#
# Not older than 26.07: what it mends, and what differs from the 2.51 that tests run, is in docs/how-to/operate.md.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.07-py3
ARG TRITON_DIGEST=
FROM ${TRITON_IMAGE}${TRITON_DIGEST:+@}${TRITON_DIGEST}
ARG TRITON_IMAGE
ARG TRITON_DIGEST
ARG ALLOW_UNPINNED=no
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
USER 0
RUN if [[ -z "$TRITON_DIGEST" && "$ALLOW_UNPINNED" != yes ]]; then \
      echo "TRITON_DIGEST is empty: a tag can change under you. Look the digest of $TRITON_IMAGE up (first lines of" \
           "docker/triton.Dockerfile) and pass --build-arg TRITON_DIGEST=sha256:..., or, for development alone," \
           "--build-arg ALLOW_UNPINNED=yes." >&2; \
      exit 1; \
    fi
# Only the Python backend can be loaded. This shrinks no layer: for a smaller image build a base with NVIDIA's compose.py
# (python backend only) and name it in TRITON_IMAGE.
RUN find /opt/tritonserver/backends -mindepth 1 -maxdepth 1 ! -name python -exec rm -rf {} +
WORKDIR /opt/superres
# A virtual environment of our own: its numpy and torch, not those of the base. The stub finds it as python3 on PATH.
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
# The fused block, twice the speed on a CPU. Where the base has a C compiler; used where the processor is that of the
# machine that built the image. Elsewhere blocks run in PyTorch, and Triton's log says so.
RUN venv/bin/python3 -m swinir.network.fused
# Weights beside the bundled ones: what lies in weights/ of the checkout, and what is fetched now, checked by hash:
# --build-arg VARIANTS="lightweight_x4 classical_m_x4". The gateway offers them by SUPERRES_VARIANTS. None is the default:
# the compact variants lie in swinir/bundled and need no fetching, so that a build asks nobody but the package index.
ARG VARIANTS=
COPY docker/triton/weights.md weight[s] weights/
RUN for name in $VARIANTS; do \
      venv/bin/python3 -c "import pathlib, sys, swinir.weights.fetch as f; print(f.fetch(sys.argv[1], pathlib.Path('weights')))" "$name"; \
    done && rm -rf weights/downloads
COPY --chmod=0755 docker/triton/start docker/triton/alive bin/
# Triton takes an ensemble only with a version directory; git keeps no empty ones.
RUN mkdir -p model_repository/upscale/1 && python3 -m compileall -q preprocessing swinir \
    && chmod -R a+rX,go-w preprocessing swinir model_repository weights bin
ENV PATH=/opt/superres/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp OMP_WAIT_POLICY=passive \
    SUPERRES_WEIGHTS_DIR=/opt/superres/weights
# gRPC; HTTP listens on loopback alone
EXPOSE 8001
USER 10001:10001
# No shell in between: tritonserver gets SIGTERM itself.
ENTRYPOINT ["/opt/superres/bin/start"]
HEALTHCHECK --interval=10s --timeout=15s --start-period=120s --retries=3 CMD ["/opt/superres/bin/alive"]
