"""Adapters to Connexion and Flask, in the order in which a request passes them.

application   builds the Connexion application from the modules below
routing       finds the operation of a path and method
validation    checks a request with the next three
security      verifies the bearer token and its permissions
parameters    parses and validates parameters
json_body     parses and validates the body and its media type
flask_bridge  runs Flask on the event loop
views         calls the operation and builds the response
"""
