# The gateway: Flask behind gunicorn, Pillow and Triton's client, without torch.
#
#   docker build -f docker/gateway.Dockerfile -t REGISTRY/superres-gateway .
#
# Several public projects pin this digest of the tag; it was not pulled here. To get a newer one:
# docker buildx imagetools inspect python:3.11-slim-bookworm --format '{{.Manifest.Digest}}'
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84
FROM ${PYTHON_IMAGE} AS build
# gateway-tracing adds what SUPERRES_OTLP_ENDPOINT needs. redis-py imports it too: 0.05 s of CPU time more at each start.
# gateway-webhooks adds what signs webhooks: 5 MB. gateway-all has both.
ARG PACKAGES=gateway
WORKDIR /src
COPY requirements.lock ./
COPY scripts/lock.py scripts/
# Two environments: the first has pip and the build backend, the second is copied into the final image.
RUN python3 scripts/lock.py select tools >tools.txt && python3 scripts/lock.py select "$PACKAGES" >gateway.txt \
    && python3 -m venv tools && python3 -m venv --without-pip /opt/superres/venv \
    && tools/bin/python3 -m pip install --no-cache-dir --require-hashes --no-deps -r tools.txt \
    && tools/bin/python3 -m pip --python /opt/superres/venv/bin/python3 install --no-cache-dir --no-compile \
       --require-hashes --no-deps -r gateway.txt
COPY pyproject.toml README.md LICENSE NOTICE THIRD-PARTY-NOTICES.md ./
COPY preprocessing preprocessing
# The table of variants and other modules that do not import torch.
COPY swinir swinir
# for `superres plan`
COPY planning planning
COPY superres superres
COPY gateway gateway
RUN tools/bin/python3 -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels . \
    && tools/bin/python3 -m pip --python /opt/superres/venv/bin/python3 install --no-cache-dir --no-deps wheels/*.whl
COPY --chmod=0755 docker/gateway/healthy /opt/superres/bin/

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/superres /opt/superres
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/superres
ENV PATH=/opt/superres/bin:/opt/superres/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/var/lib/superres \
    SUPERRES_HOST=0.0.0.0 SUPERRES_STATE_DIR=/var/lib/superres SUPERRES_LOG_FILE=- SUPERRES_DRAIN_S=25
WORKDIR /var/lib/superres
EXPOSE 8080
USER 10001:10001
ENTRYPOINT ["superres"]
CMD ["serve"]
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["healthy"]
