"""Preflight checks: what a store would lose, found before a release.

findings  the rules, and their findings
"""
