"""All that knows HTTP, in the order in which a request meets it.

route_names    the name of the path that a request found
ofrep          the setting and errors in the words of OpenFeature
etags          versions as entity tags
change_json    how a change is written down
sse            how changes are told as they happen
middleware     ASGI middleware around the application
contract       adapters to Connexion and Flask
endpoints      endpoints that no document describes
authorization  the bearer token of a request
context        typed state that the server and the layers share
"""
