"""Preflight check: whether the store can lose settings, checked before a release.

findings    rules for the servers' configuration, and what they find
provider    fetches the keys of the identity provider
inspection  reads the configuration of each server, and explains failures
"""
