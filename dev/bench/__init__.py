"""Benchmarks on real parts. ``docs/performance.md`` holds the figures of one run and how they were taken."""
