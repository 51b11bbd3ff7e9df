"""Code for development only.

launcher  runs `bin/serve`: the web process and its own store
signing   signs tokens for development
"""

# What a token for development contains if nothing else is given.
TENANT = "acme"
SUBJECT = "developer"
