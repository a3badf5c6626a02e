"""How fast a link of ``dev.netns`` really is, by sending something over it."""

import subprocess
import sys

from dev.netns import MBIT, Network

PORT = 5001
SIZE = 32_000_000
_UNLIMITED = 1000 * MBIT
_PYTHON = (sys.executable, "-I", "-S", "-c")


def goodput(network: Network, source: str, destination: str, size: int = SIZE) -> float:
    """Bits per second of payload of one TCP connection that sends ``size`` bytes.

    A shaped link gives about 96 % of its rate, because the rate counts headers too. The first 256 kB go unlimited.
    """
    arguments = (network.address(destination), str(PORT), str(size))
    rate = min(network.rate(source) or _UNLIMITED, network.rate(destination) or _UNLIMITED)
    listen = network.command(destination, (*_PYTHON, _RECEIVE, *arguments))
    with subprocess.Popen(listen, stdout=subprocess.PIPE, text=True) as receiver:
        try:
            assert receiver.stdout is not None
            receiver.stdout.readline()  # it listens
            network.run(source, (*_PYTHON, _SEND, *arguments), timeout=30 + 4 * 8 * size / rate)
            seconds = float(receiver.stdout.readline())
        finally:
            receiver.kill()
    return 8 * size / seconds


# The time from the first byte to the last, at the end where they arrive.
_RECEIVE = """
import socket, sys, time
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
connection, _ = server.accept()
left = int(sys.argv[3])
left -= len(connection.recv(1))
started = time.monotonic()
while left > 0 and (chunk := connection.recv(1 << 18)):
    left -= len(chunk)
connection.sendall(b".")
print(time.monotonic() - started, flush=True)
"""
_SEND = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
left, chunk = int(sys.argv[3]), bytes(1 << 18)
while left > 0:
    connection.sendall(chunk[:left])
    left -= len(chunk)
connection.recv(1)
"""
