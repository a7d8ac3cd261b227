"""Files of a remote store on this machine: fetched once, bounded, by a process of its own.

    client    what readers ask: any process of a run
    server    the process that answers: `python -m pretrain.fetching.server`
    source    one file from an address, in bounded time
    cache     the folder that holds them, shared by all runs of a machine

Networks are touched in that process alone. Libraries for object stores keep threads, event loops
and TLS connections, of which a fork takes broken copies, and loader processes are forks.

No torch and no NumPy at import: a process for each rank is small, and there at once.
"""
