"""Preflight check: whether the store can lose settings, checked before a release.

findings    rules for the servers' configuration, and what they find
inspection  reads the configuration of each server, and explains failures
"""
