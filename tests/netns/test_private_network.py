"""A process in a network of its own: it has the extra address, and nobody else sees it. Skipped where not allowed."""

import shlex
import subprocess
import sys

import pytest

from dev.installation import ROOT
from dev.private_network import ADDRESS

# Listens on the address, tells how to enter, and waits until it is told to end.
PROGRAM = f"""
import socket
from dev.private_network import PrivateNetworkUnavailable, enter_private_network
try:
    print(enter_private_network(), flush=True)
except PrivateNetworkUnavailable as error:
    raise SystemExit(f"unavailable: {{error}}")
server = socket.create_server(({ADDRESS!r}, 8099))
print("listening", flush=True)
input()
"""
CONNECT = f"import socket; socket.create_connection(({ADDRESS!r}, 8099), timeout=2)"


def test_address_is_there_inside_and_nowhere_else() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        way_in = process.stdout.readline().strip()
        if not way_in:
            _, complaint = process.communicate()
            assert complaint.startswith("unavailable: "), complaint
            pytest.skip(f"SKIPPED: {complaint.strip()}")
        assert process.stdout.readline() == "listening\n"
        inside = subprocess.run([*shlex.split(way_in), sys.executable, "-I", "-S", "-c", CONNECT], capture_output=True)
        assert inside.returncode == 0, inside.stderr
        outside = subprocess.run(["ip", "-brief", "address"], capture_output=True, text=True, check=True).stdout
        assert ADDRESS not in outside
        process.communicate("\n")
    assert process.returncode == 0
