"""Benchmarks, run by hand. Their figures depend on the machine, and no test compares them."""
