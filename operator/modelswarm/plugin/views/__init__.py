"""From a snapshot to what is to be shown: pure functions and frozen data."""
