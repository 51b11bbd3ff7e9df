"""All that knows HTTP, in the order in which a request meets it.

routes         the name of the path that a request found
ofrep          the setting and errors in the words of OpenFeature
routing        which operation, or which page
pages          Swagger UI, the documents, links
probes         does it live, is it ready
security       whose token, and what it may do
validation     media type, body and parameters against the document
json_body      strict JSON
parameters     strict parameters
bridge         Flask on the event loop
views          arguments for the operation, an answer from its result
preconditions  versions as entity tags
changes        how a change is written down
events         how changes are told as they happen
middleware     ASGI middleware around the application
"""
