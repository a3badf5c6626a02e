"""What runs: a Playground with its BackendRuntime and OpenModels becomes a Deployment, a Service and an autoscaler.

Everything here is pure: objects in, objects out, no cluster, no clock. The rules are llmaz's;
``docs/reference/differences-from-llmaz.md`` lists where we differ on purpose. Imports ``api``, ``content``, ``errors``.
"""
