"""Endpoints that no OpenAPI document describes.

documents   the OpenAPI documents, and `/client.yaml` for client generators
health      `/livez` and `/readyz`
prometheus  `/metrics`
readiness   whether the store answers reads, with a log line for each change
swagger_ui  Swagger UI, with the documents; redirects
"""
