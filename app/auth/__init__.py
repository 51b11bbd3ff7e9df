"""Who is asking. Knows JSON Web Tokens (RFC 7519) and where their keys come from, and nothing of the service's HTTP.

tokens       token text in, `Principal` out
token_cache  the same without verifying a token twice
keys         what a key is, in the settings or in a published set, and which algorithms fit it
jwks         the keys that identity providers publish: fetched, kept, asked for again
"""
