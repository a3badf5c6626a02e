"""A network of this process alone: loopback, and one address that is not a loopback address.

Programs that refuse loopback addresses (Dragonfly's manager, for image registries) can be shown on it. Nothing that
runs in it reaches another machine, or is reached from one. Root is not needed where users may make namespaces.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

ADDRESS = "198.18.0.1"
"""Of the range that RFC 2544 sets aside for benchmarks."""
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_COMMANDS = (
    ("ip", "link", "set", "lo", "up"),
    ("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"),
    # Programs that look for the machine's own address ask for the way to everywhere. It leads nowhere.
    ("ip", "route", "add", "default", "dev", "lo"),
)


class PrivateNetworkUnavailable(RuntimeError):
    """This user or machine cannot have one. The message is one line that says what is missing."""


def enter_private_network() -> str:
    """Move this process, and with it all that it starts, to a new network; for the rest of its life.

    Returns what a user types before a command to run it in there. To be called before the process has threads.
    Raises PrivateNetworkUnavailable.
    """
    if sys.platform != "linux" or shutil.which("ip") is None:
        raise PrivateNetworkUnavailable("needs Linux and iproute2 (apt-get install iproute2)")
    root = os.geteuid() == 0
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET if root else _CLONE_NEWNET | _CLONE_NEWUSER) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise PrivateNetworkUnavailable(f"needs root, or a kernel on which users may make namespaces ({reason})")
    if not root:
        # Whoever made the namespace is its root, without rights outside.
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path("/proc/self", name).write_text(text)
    for command in _COMMANDS:
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise PrivateNetworkUnavailable(f"{' '.join(command)}: {result.stderr.strip()}")
    namespaces = "--net" if root else "--user --net --preserve-credentials"
    return f"nsenter --target {os.getpid()} {namespaces} --"
