"""Preflight check: what a store would lose, found before a release.

findings    the rules, and their findings
inspection  how each server is configured, and why one cannot be used
"""
