"""The parts of `benches/doors.py`, which says what is tested and in which order.

    outcome.py, history.py      what may become of a call; what was asked and answered, and when
    judge/                      whether some order explains the history; one property per file
    findings.py                 what was found to be wrong
    cluster.py, namespaces.py   three nodes, and a network that each of them can be cut off from
    faults.py                   kill, stop, cut and power, one after the other
    reshape.py                  a node joins and is removed while the leader of everything stops, is cut off one way, or has a slow disk
    clients/                    a client for each door
    workload.py, figures.py     writers, readers and counters under load; how often and how fast they were answered
    final_reads.py              after the last fault every node is asked for every key
    between.py                  a SIGKILL between a SET and its answer
    shard_changes.py            for this: how often a write took effect, by the shard's count of its changes
    blocking_clients.py         for this: clients without an event loop
    grpc_python.py              a Python with grpcio, and the stubs of the packages

`grpc` and the stubs are imported inside functions, since `grpc_python.py` has to make them available first.
"""
