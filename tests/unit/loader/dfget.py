"""A stand-in for Dragonfly's ``dfget`` (client 1.5): its command line, its exit codes, and what it prints.

What it delivers is told by ``plan.json`` beside it (see ``test_dfdaemon.FakeDfget``), because its environment is not
the caller's. It imports nothing of the product, and little else: it is started for every file.
"""

import argparse
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

HERE = Path(sys.argv[1])
STARS = "*" * 40


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-O", "--output", required=True)
    parser.add_argument("-e", "--endpoint", default="/var/run/dragonfly/dfdaemon.sock")
    parser.add_argument("--timeout", default="2h")
    parser.add_argument("--tag", default="")
    parser.add_argument("--application", default="")
    parser.add_argument("--transfer-from-dfdaemon", action="store_true")
    parser.add_argument("--no-progress", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(sys.argv[2:])  # exits with 2, as clap does
    output = Path(options.output)
    number = len(list(HERE.glob("call-*")))
    call = {"argv": sys.argv[2:], "environ": dict(os.environ), "pid": os.getpid()}
    noted = HERE / f"new-{os.getpid()}"
    noted.write_text(json.dumps(call))
    noted.rename(HERE / f"call-{number}-{os.getpid()}.json")
    if not output.parent.is_dir():
        return fail("Validating", f"output path {output.parent} is not a directory")
    if output.exists() and not options.overwrite:
        return fail("Validating", f"output path {output} is already exist")
    try:
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.connect(options.endpoint)
            return deliver(options, output)
    except OSError as error:
        return fail("Connect Dfdaemon", f", can not connect {error}, please check the unix socket {options.endpoint}")


def deliver(options: argparse.Namespace, output: Path) -> int:
    plan = json.loads((HERE / "plan.json").read_text())
    name = unquote(urlsplit(options.url).path).rpartition("/resolve/")[2].partition("/")[2]
    how = plan["how"].get(name, plan["how"].get("*", "right"))
    content = (Path(plan["content"]) / name).read_bytes()
    if not options.transfer_from_dfdaemon:
        return 0  # the daemon writes, somewhere in its own view of the file system
    if how == "not found":
        header = "Header:\n  [location]: https://cdn.example/x?Signature=planted-in-a-header"
        url = "https://user:planted-password@cdn.example/file?Signature=planted-signature"
        return fail("Downloading", f"request of {url} failed", f"Bad Status Code: 404\n{{}}\n{header}")
    if how == "refused":
        return fail("Downloading", "blocked", "Bad Code: The caller does not have permission\n{}")
    if how == "nothing":
        return 0
    if how == "silent":
        hang(children=True)
    with output.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, len(content))
        if how == "holes":
            stream.write(content[: len(content) // 2])
            return 0
        if how == "hang":
            stream.write(content[:1000])
            stream.flush()
            hang(children=False)
        if how == "crawl":
            while True:
                stream.write(content[:1])
                stream.flush()
                time.sleep(0.02)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "chatty":
            print("x" * 300_000, flush=True)
        stream.write({"wrong": bytes(len(content)), "short": content[:-1], "long": content + b"x"}.get(how, content))
    if how == "short":
        os.truncate(output, len(content) - 1)
    return 0


def hang(*, children: bool) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if children and (child := os.fork()):
        (HERE / "child").write_text(str(child))
    while True:
        time.sleep(60)


def fail(step: str, message: str, form: str = "{}") -> int:
    bold, plain = "\x1b[38;5;1m\x1b[3m\x1b[1m", "\x1b[m"
    told = form.replace("{}", f"{bold}Message:{plain} {message}")
    print(f"{bold}{step} Failed!{plain}\n{bold}{STARS}{plain}\n{told}\n{bold}{STARS}{plain}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
