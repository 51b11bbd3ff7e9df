# Image of the web process, without test tools, store or compiler. The tag pins the minor version of Python, like
# .python-version. For production, add the digest of the base image. Build it with `--format docker` if the builder is
# buildah or podman: their own format has no health check.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /service
COPY requirements.txt /tmp/
# Compiled once, here: the user of the container cannot write, so Python would compile at each start. Builders round the
# times of files, so Python must not compare them with the byte code.
RUN python -m venv --without-pip /venv \
    && python -m pip --python /venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
        --only-binary :all: --require-hashes -r /tmp/requirements.txt \
    && python -m compileall -q --invalidation-mode unchecked-hash /venv/lib
COPY openapi.yaml ./
COPY app app
COPY external_oms_config external_oms_config
RUN python -m compileall -q --invalidation-mode unchecked-hash app external_oms_config

FROM ${BASE}
# The official image has an installer, and no byte code of the standard library.
RUN python -m compileall -q -f --invalidation-mode unchecked-hash -x '/tests?/|/site-packages/|/dist-packages/' \
        "$(python -c 'import os; print(os.path.dirname(os.__file__))')" \
    && rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/ensurepip \
        /usr/local/lib/python3.*/site-packages/pip* /usr/local/lib/python3.*/site-packages/setuptools*
COPY --from=build /venv /venv
COPY --from=build /service /service
WORKDIR /service
LABEL org.opencontainers.image.version=1.0.0
ENV PATH=/venv/bin:$PATH
EXPOSE 8000
# A number lets a platform verify that the user is not root.
USER 10001
HEALTHCHECK --interval=30s --timeout=2s --start-period=10s CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8000), timeout=1); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "app.server"]
