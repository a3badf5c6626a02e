"""Who decides: one module per kind (model, playground, p2ptask), the queue they share, and the pure decisions.

A reconcile reads the world (the store that the watches feed), decides with pure functions, applies what differs, and
writes status once and only if it changed. It may be cut off after any write: the next pass goes on from there.
Imports every room but ``loader`` and ``cli``.
"""
