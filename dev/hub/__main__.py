"""`python -m dev.hub --root DIR`: serve the folders of a directory as repositories until told to stop."""

import argparse
import asyncio
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from dev.hub.repository import DEFAULT_LFS_THRESHOLD, Repository
from dev.hub.server import Hub

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}


def parse_size(text: str) -> int:
    """`5MB`, `64KiB`, `1.5G` or plain bytes, as a number of bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?)?B?", text.strip().upper())
    if found is None:
        raise argparse.ArgumentTypeError(f"not a size: {text!r}")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def find_repositories(root: Path) -> Iterator[tuple[str, Path]]:
    """Ids and folders below `root`: `org/name` for a folder two down, `name` for one that holds files itself."""
    for first in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if any(path.is_file() for path in first.iterdir()):
            yield first.name, first
            continue
        for second in sorted(path for path in first.iterdir() if path.is_dir() and not path.name.startswith(".")):
            yield f"{first.name}/{second.name}", second


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.hub", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="DIR/<org>/<name> are the repositories")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--advertise", help="host name clients use, when it is not --host")
    parser.add_argument("--port", type=int, default=0, help="port of the hub, 0 for a free one")
    parser.add_argument("--cdn-port", type=int, default=0, help="port of the CDN, 0 for a free one")
    parser.add_argument("--rate", type=parse_size, help="bytes per second over all connections, as in 5MB")
    parser.add_argument("--connection-rate", type=parse_size, help="bytes per second of each connection")
    parser.add_argument("--first-byte-delay", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--page-size", type=int, default=1000, help="entries in a page of a tree")
    parser.add_argument("--lfs-threshold", type=parse_size, default=DEFAULT_LFS_THRESHOLD, help="size of an LFS file")
    parser.add_argument("--gated", action="append", default=[], metavar="ID", help="repository only lists may read")
    parser.add_argument("--private", action="append", default=[], metavar="ID", help="repository strangers do not see")
    parser.add_argument(
        "--token", action="append", default=[], metavar="TOKEN[=PATTERN,...]", help="a login and what it may read"
    )
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> None:
    hub = Hub(
        host=options.host,
        port=options.port,
        cdn_port=options.cdn_port,
        advertise=options.advertise,
        page_size=options.page_size,
        rate=options.rate,
        connection_rate=options.connection_rate,
        first_byte_delay=options.first_byte_delay,
    )
    for id, folder in find_repositories(options.root):
        repository = Repository.from_folder(
            folder,
            id=id,
            gated="manual" if id in options.gated else False,
            private=id in options.private,
            lfs_threshold=options.lfs_threshold,
        )
        hub.add(repository)
    for text in options.token:
        token, _, patterns = text.partition("=")
        hub.allow(token, *filter(None, patterns.split(",")))
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with hub:
        heads = {id: repository.head for id, repository in hub.repositories.items()}
        print(json.dumps({"url": hub.url, "cdn_url": hub.cdn_url, "repositories": heads}), flush=True)
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(serve(parse_arguments(sys.argv[1:])))
