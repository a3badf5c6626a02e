"""Printing: tables for people, JSON and YAML for programs."""
