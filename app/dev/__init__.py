"""What only development needs.

launcher  `bin/serve`: the web process with a store of its own
signing   tokens for development
"""
