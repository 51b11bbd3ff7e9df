"""Who is asking. Knows JSON Web Tokens (RFC 7519) and where their keys come from, and nothing of the service's HTTP.

tokens      token text in, `Principal` out
remembered  the same without verifying a token twice
keys        which key verifies a token: the ones that the settings hold
issuers     and the ones that identity providers publish
"""
