# Scores images on CPUs. From the repository's root:
#   docker build --file deploy/cpu.Dockerfile --tag pscr-engine:cpu .
# EXTRAS and ALSO choose what is installed: see docs/deploy.md.

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY pscr_engine pscr_engine
COPY export export
COPY training training
# The build tool is locked like the rest, which pip would not do in an isolated build.
RUN pip install --no-cache-dir --constraint constraints.txt hatchling \
 && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11-slim-bookworm AS install
ARG EXTRAS=cpu,stores,report
ARG ALSO=""
WORKDIR /src
COPY constraints.txt constraints.txt
COPY deploy/constraints.txt deploy/constraints.txt
COPY --from=wheel /wheels /wheels
RUN python3 -m venv --without-pip /opt/pscr-engine \
 && pip --python /opt/pscr-engine/bin/python install --no-cache-dir \
      --constraint constraints.txt --constraint deploy/constraints.txt \
      "$(echo /wheels/*.whl)[$EXTRAS]" ${ALSO:+"$ALSO"}

FROM python:3.11-slim-bookworm
COPY --from=install /opt/pscr-engine /opt/pscr-engine
# Anybody may write to the cache, which is the home, too: clusters run containers under ids of their own choice.
# Login shells, as KubeRay may start, look for commands in /usr/local/bin.
RUN groupadd --gid 10001 pscr \
 && useradd --uid 10001 --gid pscr --no-log-init --no-create-home --home-dir /cache pscr \
 && install --directory --mode 1777 /cache \
 && install --directory --owner pscr --group pscr /data \
 && find /opt/pscr-engine/bin '(' -name pscr-engine -o -name ray ')' -exec ln -s -t /usr/local/bin '{}' +
ENV PATH=/opt/pscr-engine/bin:$PATH \
    HOME=/cache \
    XDG_CACHE_HOME=/cache \
    ORT_DISABLE_TELEMETRY=1
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["pscr-engine"]
CMD ["--help"]
