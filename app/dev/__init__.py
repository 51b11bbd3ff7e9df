"""Development only: `bin/serve` and its tokens.

launcher  `bin/serve`: runs the web process with its own store
signing   tokens for development
"""
