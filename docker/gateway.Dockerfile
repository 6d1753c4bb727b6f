# The gateway: Flask behind gunicorn, Pillow, Triton's client. No torch.
#
#   docker build -f docker/gateway.Dockerfile -t REGISTRY/superres-gateway .
#
# The digest is the one that several public projects pin for this tag; it was not pulled while this was written. A newer
# one: docker buildx imagetools inspect python:3.11-slim-bookworm --format '{{.Manifest.Digest}}'
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84
FROM ${PYTHON_IMAGE} AS build
WORKDIR /opt/superres
COPY docker/requirements-gateway.txt ./
# pip stays outside: it is no part of what runs.
RUN python3 -m venv --without-pip venv \
    && python3 -m pip --python venv/bin/python3 install --no-cache-dir --no-compile -r requirements-gateway.txt
WORKDIR /src
COPY pyproject.toml ./
COPY preprocessing preprocessing
# Its table of variants and what else imports no torch.
COPY swinir swinir
# `superres plan`
COPY planning planning
COPY gateway gateway
RUN touch README.md \
    && python3 -m pip --python /opt/superres/venv/bin/python3 install --no-cache-dir --no-deps .
COPY --chmod=0755 docker/gateway/healthy /opt/superres/bin/

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/superres /opt/superres
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/superres
ENV PATH=/opt/superres/bin:/opt/superres/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/var/lib/superres \
    SUPERRES_HOST=0.0.0.0 SUPERRES_STATE_DIR=/var/lib/superres SUPERRES_LOG_FILE=-
WORKDIR /var/lib/superres
EXPOSE 8080
USER 10001:10001
ENTRYPOINT ["superres"]
CMD ["serve"]
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["healthy"]
