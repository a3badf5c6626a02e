"""What users write: one pydantic module per kind, conditions, labels; ``schema.py`` turns them into ``crds/``.

Everybody may import this room; it imports nothing of ours.
"""
