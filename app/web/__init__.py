"""All that knows HTTP, in the order in which a request meets it.

routes         the name of the path that a request found
ofrep          the setting and errors in the words of OpenFeature
preconditions  versions as entity tags
changes        how a change is written down
events         how changes are told as they happen
middleware     ASGI middleware around the application
contract       adapters to Connexion and Flask
endpoints      endpoints that no document describes
"""
