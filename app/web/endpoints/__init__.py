"""Endpoints that no OpenAPI document describes.

health      liveness and readiness
swagger_ui  Swagger UI, the documents, links
prometheus  /metrics
"""
