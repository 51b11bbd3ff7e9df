"""The web process: uvicorn and httptools, with bounds and a graceful shutdown.

`python -m app.server` is `__main__`: it checks the settings once, then runs uvicorn.

http_protocol      answers the requests of one connection in order, within limits
request_parsing    httptools, with the checks that it leaves out
request_head       checks of a request's head
framing            finds where each request ends
lingering          ends connections: lingering close, reset
graceful_shutdown  runs the worker processes and stops them without dropped requests
listen_socket      the listening socket that the workers share
"""

from uvicorn.config import STARTUP_FAILURE

__all__ = ["STARTUP_FAILURE"]
