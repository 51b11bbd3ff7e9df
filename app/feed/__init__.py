"""Change events for any number of subscribers, over one subscription to the store per worker.

feed        holds the subscription and the topics
topic       reads one tenant's changes once for all its subscribers
subscriber  delivers changes to one event stream
outage      the limit and the pauses of failed reads of the store
"""
