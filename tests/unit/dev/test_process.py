"""Ports for programs that are started later."""

import subprocess
import sys

import pytest

from dev import process
from dev.process import free_port

CHOOSE = """
import sys
from dev.process import free_port
print(*(free_port() for _ in range(150)), flush=True)
sys.stdin.read()
"""


def test_a_port_that_one_program_has_chosen_is_given_to_no_other() -> None:
    """450 of ten thousand: by chance, some would be the same."""
    programs = [
        subprocess.Popen([sys.executable, "-c", CHOOSE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    chosen = []
    try:
        for program in programs:
            assert program.stdout is not None
            chosen += program.stdout.readline().split()
    finally:
        for program in programs:
            program.communicate()
    assert len(chosen) == len(set(chosen)) == 450


def test_only_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "RESERVED_PORTS", 3)
    monkeypatch.setattr(process, "_reserved", type(process._reserved)())
    ports = [free_port() for _ in range(5)]
    assert [reserve_again(port) for port in ports] == [True, True, False, False, False]
    for each in process._reserved:
        each.close()


def reserve_again(port: int) -> bool:
    found = process.reserve(f"port-{port}")
    if found is not None:
        found.close()
    return found is not None
