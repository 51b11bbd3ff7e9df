"""ASGI middleware for HTTP requests, outermost first, and the request observers.

server_spans       OpenTelemetry's server span of each request, if the process has a tracer provider
request_observers  reports each finished request to the request observers, and adds the next headers
response_headers   the headers that every response has: request ID, tenant, `X-Content-Type-Options`
access_log         request observer: one log line per request
trace_context      the W3C trace context of a request, for the log
request_metrics    request observer: Prometheus metrics
cors               Cross-Origin Resource Sharing
error_responses    turns exceptions into error responses
streaming          sends event streams
"""
