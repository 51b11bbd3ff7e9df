"""Endpoints that no OpenAPI document describes.

health      `/livez` and `/readyz`
prometheus  `/metrics`
swagger_ui  Swagger UI, the OpenAPI documents, redirects
"""
