"""Several processes that share the work of the same pipelines: a supervisor and its units.

The supervisor holds the data directory and the ports, starts the units, starts them again when they crash, and answers
the admin endpoints for all of them. Each unit is an engine in a process of its own and speaks with the supervisor over
a pair of sockets; when the supervisor is gone, the units drain.
"""
