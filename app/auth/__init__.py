"""Verification of JSON Web Tokens (RFC 7519). Nothing here depends on HTTP requests to the service.

tokens       verifies a token and returns its principal
token_cache  caches verified tokens
keys         keys from settings or a JWKS, and the algorithms that fit them
jwks         fetches and caches the key sets of identity providers
"""
