"""Code for development only.

launcher  runs `bin/serve`: the web process and its own store
signing   signs tokens for development
"""
