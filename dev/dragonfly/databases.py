"""MariaDB and Redis as child processes with data directories of their own, for the manager and the scheduler."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from dev.dragonfly.configs import DATABASE, DATABASE_PASSWORD, DATABASE_USER, Endpoint
from dev.dragonfly.packages import program_path
from dev.process import Child, StartupFailed

INSTALL_TIMEOUT = 120.0
READY_TIMEOUT = 60.0
POLL_INTERVAL = 0.05

# Executed at each start before the first connection is accepted.
_INITIAL_SQL = f"""\
CREATE DATABASE IF NOT EXISTS {DATABASE} CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS '{DATABASE_USER}'@'%' IDENTIFIED BY '{DATABASE_PASSWORD}';
GRANT ALL ON {DATABASE}.* TO '{DATABASE_USER}'@'%';
"""


def install_mariadb(directory: Path) -> None:
    """Make the files of an empty MariaDB below ``directory``."""
    directory.mkdir()
    (directory / "initial.sql").write_text(_INITIAL_SQL)
    command = [
        _program("mariadb-install-db"),
        "--no-defaults",
        f"--datadir={directory / 'data'}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        *_account(),
    ]
    result = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=INSTALL_TIMEOUT, cwd=directory
    )
    if result.returncode:
        end = "\n".join((result.stdout + result.stderr).strip().splitlines()[-10:])
        raise StartupFailed(f"mariadb-install-db failed:\n{end}")


def mariadb(directory: Path, endpoint: Endpoint, log: Path) -> Child:
    """MariaDB on the files that ``install_mariadb`` made. Durable against its own death, not against a power cut."""
    flags = [
        "--no-defaults",
        f"--datadir={directory / 'data'}",
        f"--socket={directory / 'sock'}",
        f"--pid-file={directory / 'pid'}",
        f"--bind-address={endpoint.address}",
        f"--port={endpoint.port}",
        f"--init-file={directory / 'initial.sql'}",
        "--skip-name-resolve",
        "--skip-log-bin",
        "--performance-schema=OFF",
        "--innodb-buffer-pool-size=32M",
        "--innodb-flush-log-at-trx-commit=2",
        *_account(),
    ]
    return Child("mariadb", [_program("mariadbd"), *flags], log=log, cwd=directory)


def redis(directory: Path, endpoint: Endpoint, log: Path) -> Child:
    """Redis without persistence: the queues of jobs are gone when it is."""
    directory.mkdir()
    flags = [
        *("--bind", endpoint.address),
        *("--port", str(endpoint.port)),
        *("--dir", str(directory)),
        *("--save", ""),
        *("--appendonly", "no"),
        *("--protected-mode", "no"),
    ]
    return Child("redis", [_program("redis-server"), *flags], log=log, cwd=directory)


def wait_for_mariadb(child: Child, endpoint: Endpoint) -> None:
    # The server speaks first; until it is ready it lets connections wait.
    _wait(child, lambda: len(_exchange(endpoint, b"")) > 4)


def wait_for_redis(child: Child, endpoint: Endpoint) -> None:
    _wait(child, lambda: _exchange(endpoint, b"PING\r\n").startswith(b"+PONG"))


def listens(endpoint: Endpoint) -> bool:
    try:
        socket.create_connection((endpoint.address, endpoint.port), timeout=2).close()
    except OSError:
        return False
    return True


def _wait(child: Child, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    while not ready():
        if not child.running:
            raise child.failure("ended during start-up")
        if time.monotonic() > deadline:
            raise child.failure(f"not ready in {READY_TIMEOUT:.0f} s")
        time.sleep(POLL_INTERVAL)


def _exchange(endpoint: Endpoint, request: bytes) -> bytes:
    """The first bytes of the answer; empty when there is none."""
    try:
        with socket.create_connection((endpoint.address, endpoint.port), timeout=2) as connection:
            connection.sendall(request)
            return connection.recv(128)
    except OSError:
        return b""


def _program(name: str) -> str:
    path = program_path(name)
    if path is None:
        raise StartupFailed(f"there is no {name} on this machine")
    return path


def _account() -> list[str]:
    # MariaDB refuses to run as root unless told to.
    return ["--user=root"] if os.geteuid() == 0 else []
