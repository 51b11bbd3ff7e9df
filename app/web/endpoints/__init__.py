"""Endpoints that no OpenAPI document describes.

health      `/livez` and `/readyz`
prometheus  `/metrics`
readiness   whether the store answers reads, with a log line for each change
swagger_ui  Swagger UI, the OpenAPI documents, redirects
"""
