"""Becomes a program inside an unpacked image, with as few rights as its pod leaves it: ``launch.py REQUEST``.

Runs in namespaces of its own, in which the image's root has been mounted read-only. REQUEST is JSON: ``root``, ``uid``,
``environment``, ``command``, and ``serve``, a name: then a name server on 127.0.0.1:53 says that this name is 10.9.8.7,
and somebody listens on port 6881.
"""

import ctypes
import json
import os
import socket
import sys

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
LAST_CAPABILITY = 63


def main() -> None:
    request = json.loads(sys.argv[1])
    if request["serve"]:
        serve(request["serve"])
    os.chroot(request["root"])
    os.chdir("/")
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # those that the kernel does not know are refused
    os.setgroups([])
    os.setgid(request["uid"])
    os.setuid(request["uid"])
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        sys.exit("no_new_privs was refused")
    os.umask(0o022)
    command, environment = request["command"], request["environment"]
    # Not execvpe, which imports modules: there is no library of this Python any more.
    for directory in environment["PATH"].split(":"):
        program = os.path.join(directory, command[0])
        if os.access(program, os.X_OK):
            os.execve(program, command, environment)
    sys.exit(f"{command[0]}: not found")


def serve(name: str) -> None:
    """Answer in a process of its own, which goes away with the namespaces."""
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("127.0.0.1", 53))
    listener = socket.create_server(("127.0.0.1", 6881), backlog=16)
    if os.fork():
        return
    wanted = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    while listener:
        question, client = names.recvfrom(512)
        end = question.index(b"\0", 12) + 1
        asked, kind = question[12:end], question[end : end + 2]
        known = asked == wanted
        here = known and kind == b"\0\1"
        flags = b"\x85\x80" if known else b"\x85\x83"
        head = question[:2] + flags + b"\0\1" + (b"\0\1" if here else b"\0\0") + b"\0\0\0\0"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4" + socket.inet_aton("10.9.8.7") if here else b""
        names.sendto(head + question[12 : end + 4] + answer, client)


if __name__ == "__main__":
    main()
