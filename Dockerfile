# Two images from one file: the node (the default) and, for trying things out, a mint.
#   docker build -t routstr .
#   docker build -t routstr-mint --target mint .
# Every package is checked against the hashes of its lock, wheels only. To pin the base as well, give
# it by digest: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.12-slim-trixie

FROM ${PYTHON_IMAGE} AS node-environment
COPY requirements.lock /tmp/
RUN python -m venv /venv \
 && /venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --no-deps --only-binary :all: --require-hashes -r /tmp/requirements.lock

FROM ${PYTHON_IMAGE} AS mint-environment
COPY requirements-mint.lock /tmp/
RUN python -m venv /venv \
 && /venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --no-deps --only-binary :all: --require-hashes -r /tmp/requirements-mint.lock

# A real mint whose Lightning is make-believe: every invoice pays itself. Never for real money.
FROM ${PYTHON_IMAGE} AS mint
RUN useradd --system --uid 10002 --create-home --home-dir /data mint
COPY --from=mint-environment /venv /venv
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin \
    LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    CASHU_DIR=/data MINT_DATABASE=/data/mint MINT_AUTH_DATABASE=/data/auth \
    MINT_LISTEN_HOST=0.0.0.0 MINT_LISTEN_PORT=3338 \
    MINT_BACKEND_BOLT11_SAT=FakeWallet MINT_INPUT_FEE_PPK=0
USER 10002:10002
WORKDIR /data
VOLUME /data
EXPOSE 3338
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:3338/v1/keysets', timeout=2)"]
CMD ["mint"]

# Backups of PostgreSQL are made by its own pg_dump, which must not be older than the server.
FROM ${PYTHON_IMAGE} AS node
RUN apt-get update \
 && apt-get install -y --no-install-recommends postgresql-client-17 \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --create-home --home-dir /data routstr
COPY --from=node-environment /venv /venv
WORKDIR /app
COPY LICENSE alembic.ini ./
COPY migrations ./migrations
COPY demo/models.json ./demo/models.json
COPY routstr ./routstr
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    ROUTSTR_HOST=0.0.0.0 ROUTSTR_PORT=8000 ROUTSTR_DATA_DIR=/data
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
ENTRYPOINT ["python", "-m", "routstr"]
CMD ["serve"]
