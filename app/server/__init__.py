"""The web process: uvicorn and httptools, with limits and a graceful shutdown.

`python -m app.server` runs `__main__`: it checks the settings, then starts uvicorn.

http_protocol      one HTTP connection: order of responses, time limits, errors
request_parsing    passes input to httptools and limits its size
request_head       checks `Host` and `Transfer-Encoding`, reads the host of the target
close_delimited    responses to HTTP/1.0 clients
framing            finds where each request head and body ends
lingering_close    closes or resets a connection
graceful_shutdown  runs the worker processes and stops them without dropping requests
listen_socket      the listening socket that the workers share
"""

from uvicorn.config import STARTUP_FAILURE

__all__ = ["STARTUP_FAILURE"]
