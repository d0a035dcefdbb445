# docker build -t nrccr .
# docker build -t nrccr --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .        # for GPUs
# Steps are the scripts of the checkout, as on any machine. docs/container.md says how to use it.
ARG BASE=python:3.12-slim
FROM ${BASE}

# A base without Python, such as NVIDIA's, gets its distribution's.
RUN command -v python3 >/dev/null || { \
        apt-get update && \
        apt-get install --yes --no-install-recommends python3 python3-venv && \
        rm -rf /var/lib/apt/lists/*; \
    }

RUN useradd --create-home --uid 10001 nrccr && install --directory --owner=nrccr /opt/nrccr /data
USER nrccr
WORKDIR /opt/nrccr
COPY --chown=nrccr . .

# Without extras for the quick start, with them for films, translation, search and the page.
RUN scripts/setup.sh && scripts/setup.sh extract search serve translate
ENV PATH=/opt/nrccr/.venv/bin:$PATH

CMD ["scripts/quickstart.sh", "/data/quickstart"]
