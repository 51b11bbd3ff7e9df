# Image of the web process, without test tools, store or compiler. The tag pins the minor version of Python, like
# .python-version. For production, add the digest of the base image.
FROM python:3.11-slim AS build
WORKDIR /service
COPY requirements.txt /tmp/
# Compiled once, here: the user of the container cannot write, so Python would compile at each start.
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: -r /tmp/requirements.txt \
    && /venv/bin/python -m compileall -q /venv/lib
COPY openapi.yaml ./
COPY app app
RUN /venv/bin/python -m compileall -q app

FROM python:3.11-slim
COPY --from=build /venv /venv
COPY --from=build /service /service
WORKDIR /service
ENV PATH=/venv/bin:$PATH
EXPOSE 8000
# A number lets a platform verify that the user is not root.
USER 10001
HEALTHCHECK --interval=30s --timeout=2s --start-period=10s CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8000), timeout=1); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "app.server"]
