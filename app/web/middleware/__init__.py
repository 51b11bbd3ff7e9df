"""ASGI middleware, outermost first.

request_id         gives each request an identifier
request_observers  reports each finished request to its observers
access_log         observer: one log line per request
request_metrics    observer: Prometheus metrics of requests
cors               Cross-Origin Resource Sharing
error_responses    turns exceptions into error responses
streaming          sends event streams
trace_context      reads the W3C trace context of a request
"""
