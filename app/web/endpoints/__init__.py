"""Endpoints that no OpenAPI document describes.

documents   the OpenAPI documents, and `/client.yaml` for client generators
health      `/livez` and `/readyz`
prometheus  `/metrics`
swagger_ui  Swagger UI, with the documents; redirects
"""
