"""Real partitions: workers, Redis servers and clients on machines whose network is cut and healed.

`python -m tests.partitions --seconds 25` prints what was lost, for each topology and each setting.
"""
