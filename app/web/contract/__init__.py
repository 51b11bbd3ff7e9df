"""Adapters to Connexion and Flask, in the order in which a request meets them.

application   builds the Connexion application from the parts below
routing       finds the operation or the page
security      verifies the bearer token and its permissions
validation    checks media type, body and parameters against the document
json_body     parses JSON strictly
parameters    parses parameters strictly
flask_bridge  runs Flask on the event loop
views         calls the operation and builds the response
"""
