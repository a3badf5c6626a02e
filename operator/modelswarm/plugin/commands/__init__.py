"""One module per command: its arguments, what it asks of the cluster, its exit code."""
