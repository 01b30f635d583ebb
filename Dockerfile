# The service as an image: no shell is needed to run it, nothing is written but /tmp and the
# state of the embedded store.
#
#   docker build --tag sluicegate .
#   docker build --tag sluicegate --build-arg BASE=python:3.12-slim-bookworm .
#
# BASE is any image with Python 3.11 or newer as `python`, pip and a shell. For builds that
# repeat, name it by its digest. Everything else is pinned by hash (scripts/image_pins.py).
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    SOURCE_DATE_EPOCH=1735689600
WORKDIR /src

# What changes least comes first: layers above a change are kept.
COPY constraints-image.txt constraints-build.txt ./
RUN python -m venv --without-pip /opt/sluicegate \
 && python -m pip --python /opt/sluicegate/bin/python install \
      --no-compile --no-deps --require-hashes -r constraints-image.txt \
 && python -m pip install --no-compile --no-deps --require-hashes --target /build \
      -r constraints-build.txt

COPY pyproject.toml README.md LICENSE ./
COPY lua lua
COPY limiter_wire limiter_wire
COPY client_sdk client_sdk
COPY limiter_service limiter_service
# Byte code is checked against nothing when it is loaded: the same files on every build.
RUN PYTHONPATH=/build python -m hatchling build -t wheel -d /wheels \
 && python -m pip --python /opt/sluicegate/bin/python install \
      --no-compile --no-deps --no-index --find-links /wheels sluicegate \
 && /opt/sluicegate/bin/python -m compileall -q --invalidation-mode unchecked-hash \
      /opt/sluicegate/lib \
 && mkdir -p /state

FROM ${BASE}
LABEL org.opencontainers.image.title="sluicegate" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/sluicegate/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SLUICEGATE_HOST=0.0.0.0 \
    SLUICEGATE_STATE_DIR=/var/lib/sluicegate
# The base's installer is of no use to a service, and of some to an intruder. The environment
# that is served from, copied below, has none.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore pip
COPY --from=build /opt/sluicegate /opt/sluicegate
COPY --from=build --chown=65532:65532 /state /var/lib/sluicegate
VOLUME /var/lib/sluicegate
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('SLUICEGATE_PORT', 8080)}/livez\", timeout=2)"]
ENTRYPOINT ["sluicegate"]
CMD ["serve"]
