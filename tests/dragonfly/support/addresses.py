"""An address of this machine that is not a loopback address, for as long as a test needs one.

Dragonfly's manager refuses registries on loopback addresses. The address is put on the loopback device all the same, so
that nobody else can reach it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


class AddressUnavailable(RuntimeError):
    """This user or machine cannot have one. The message is one line that says what is missing."""


@contextmanager
def private_address() -> Iterator[str]:
    """An address of the range that RFC 2544 sets aside for benchmarks. Raises AddressUnavailable."""
    ip = shutil.which("ip")
    if os.geteuid() != 0 or ip is None:
        raise AddressUnavailable("an address that is not loopback needs root and iproute2 (apt-get install iproute2)")
    # By process, so that two runs on one machine do not take it from each other.
    address = f"198.18.{128 + os.getpid() // 250 % 120}.{1 + os.getpid() % 250}"
    _run(ip, "add", address)
    try:
        yield address
    finally:
        _run(ip, "delete", address)


def _run(ip: str, verb: str, address: str) -> None:
    result = subprocess.run([ip, "address", verb, f"{address}/32", "dev", "lo"], capture_output=True, text=True)
    if result.returncode:
        raise AddressUnavailable(f"ip address {verb} {address}: {result.stderr.strip()}")
