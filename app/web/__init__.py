"""HTTP: everything between the server and the operations.

middleware    ASGI middleware around the application
contract      adapters to Connexion and Flask: routing, security, validation, responses
endpoints     endpoints that no OpenAPI document describes
context       typed state that the server and the layers share
bearer_token  the bearer token of a request
etags         versions as entity tags: `ETag`, `If-Match`, `If-None-Match`
change_reason the reason for a change: `Change-Reason`
change_json   a change as JSON, for the history and the events
sse           a subscriber's events as Server-Sent Events
ofrep         flag evaluations and errors as OFREP defines them
"""
