"""A deterministic simulation: the product's store and feed on a simulated event loop, network and Redis.

A seed decides everything that happens, so a failing run can be repeated exactly.

loop          event loop with virtual time
network       links between hosts: delays, lost connections, partitions
database      the keys of a server, and the commands on them
log           what a server has written, and what a crash loses of it
session       the server's side of a connection
replication   from a primary to a replica
server        a Redis server and its faults
cluster_node  a server of a Redis Cluster
connection    what the store uses of redis-py's connections
deployment    base class of the next three
one_server    one server that fails
sentinels     a primary, a replica and sentinels, with failovers and partitions
cluster       two shards, with slots that move, failovers and partitions
clients       callers and listeners
journal       what happened in a run
rules         what must hold after a run, in addition to tests/register.py
run           one run of the product, or of a negative control
scenarios     the servers on which the product runs
controls      negative controls
__main__      the command line
"""
