"""``modelswarm load``: arguments in, exit code out; signals, the summary and the termination message in between."""

import argparse
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelswarm.loader.session import Session
    from modelswarm.loader.summary import Summary

_GRACE_SECONDS = 0.8
"""After SIGTERM: time to note how far the files are. Being killed costs no more than the last second of that note."""

_EPILOG = """\
The model is named by the environment, as for llmaz's loader: MODEL_SOURCE_TYPE=modelhub with MODEL_ID, MODEL_HUB_NAME,
REVISION, MODEL_FILENAME, MODEL_ALLOW_PATTERNS, MODEL_IGNORE_PATTERNS and HF_TOKEN; or MODEL_SOURCE_TYPE=objstore with
PROVIDER, ENDPOINT, BUCKET, MODEL_PATH and the store's access keys.

exit codes: 0 done; 1 worth another start; 2 a person must act (settings, credentials, nothing there);
3 the volume (full, not writable); 143 stopped by SIGTERM. Part files are continued by the next start.
"""


def run(argv: Sequence[str]) -> int:
    """Parse ``argv``, load, report. Everything that costs start-up time is imported after the parsing."""
    options = build_parser(os.environ).parse_args(argv)
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _leave) if in_main_thread else None
    try:
        return _load(options)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


def _leave(number: int, _: object) -> None:
    """For the time of the imports: the first process of a container ignores a signal that it does not handle."""
    os._exit(128 + number)


def _load(options: argparse.Namespace) -> int:
    import asyncio

    from modelswarm.errors import LoadError
    from modelswarm.loader.outcome import Exit, Reason, exit_code
    from modelswarm.loader.session import Session, open_session
    from modelswarm.loader.summary import Summary, write_termination_log

    started = time.monotonic()
    session: Session | None = None
    reason, message = "", ""
    _forget_missing_authorities()
    try:
        session = open_session(options, os.environ, say)
        asyncio.run(_until_stopped(session))
    except asyncio.CancelledError:
        reason, message = Reason.INTERRUPTED, "stopped by SIGTERM; the next start continues where this one ended"
    except LoadError as error:
        reason, message = error.reason, error.message
    except Exception as error:  # noqa: BLE001  (the last line of defence: the pod's owner must see a reason)
        # Only the type: the text of an unforeseen error may hold anything, a signed URL for instance.
        reason, message = Reason.INTERNAL_ERROR, f"{type(error).__name__} in {_where(error)}; please report this"
    meter = session.meter if session else None
    manifest = session.manifest if session else None
    summary = Summary(
        result="Failed" if reason else "Loaded",
        reason=reason or "Loaded",
        message=message or (f"verified {session.directory}" if session else ""),
        model=session.model if session else "",
        revision=manifest.revision if manifest else None,
        files=meter.files_done if meter else 0,
        bytes=manifest.bytes if manifest else 0,
        seconds=time.monotonic() - started,
        bytes_by_source=meter.by_source if meter else {},
        unverified=meter.unverified if meter else 0,
        skipped=session.detours.texts() if session else {},
        waited=session.turn.waited if session and session.turn else 0.0,
    )
    say(_last_line(summary))
    text = summary.to_json()
    if options.termination_log and (problem := write_termination_log(Path(options.termination_log), text)):
        say(problem)
    return exit_code(reason) if reason else Exit.OK


def say(line: str) -> None:
    """One line on standard output, at once; with ``MODELSWARM_LOG_FORMAT=json`` as the other programs write theirs."""
    if os.environ.get("MODELSWARM_LOG_FORMAT", "").strip() == "json":
        import json
        from datetime import UTC, datetime

        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "level": "info", "logger": "modelswarm.loader", "message": line})
        print(line, flush=True)
    else:
        print(f"model-loader: {line}", flush=True)


def _forget_missing_authorities() -> None:
    """The ConfigMap with them is optional, as most loaders ask no origin; who does then goes by the public ones."""
    path = os.environ.get("SSL_CERT_FILE", "")
    if path and not Path(path).is_file():
        say(f"there is no {path} (SSL_CERT_FILE); the public certificate authorities are used")
        del os.environ["SSL_CERT_FILE"]


async def _until_stopped(session: "Session") -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(session.run())

    def stop() -> None:
        task.cancel()
        # A write or fsync on a slow disk cannot be called back; do not let it hold up the pod's end.
        deadline = threading.Timer(_GRACE_SECONDS, os._exit, (128 + signal.SIGTERM,))
        deadline.daemon = True
        deadline.start()

    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
    await task


def _last_line(summary: "Summary") -> str:
    from modelswarm.loader.progress import duration, size

    sources = ", ".join(f"{name} {size(count)}" for name, count in sorted(summary.bytes_by_source.items()))
    if summary.result == "Loaded":
        unverified = f", {summary.unverified} without a digest" if summary.unverified else ""
        return (
            f"{summary.files} files, {size(summary.bytes)} in {duration(summary.seconds)} "
            f"({sources or 'nothing to do'}{unverified}): {summary.message}"
        )
    return f"{summary.reason}: {summary.message}"


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}" if trace else "an unknown place"


def build_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The options; ``environ`` has the defaults of some."""
    parser = argparse.ArgumentParser(
        prog="modelswarm load",
        description="Put a model's files in place, verified.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", default="/workspace/models", help="directory of all models (default %(default)s)")
    parser.add_argument(
        "--manifest-dir",
        default=environ.get("MODELSWARM_MANIFEST_DIR") or None,
        help="directory with manifest-*.json.gz; optional, also when named (env MODELSWARM_MANIFEST_DIR)",
    )
    parser.add_argument(
        "--parallel",
        type=int,
        help="downloads at once: files, and ranges of large files (env MODELSWARM_LOAD_PARALLEL, default 4)",
    )
    parser.add_argument("--check", action="store_true", help="verify what is there and fetch no file")
    parser.add_argument(
        "--termination-log",
        default=environ.get("MODELSWARM_TERMINATION_LOG", "/dev/termination-log"),
        help="where the JSON summary goes (env MODELSWARM_TERMINATION_LOG, default /dev/termination-log)",
    )
    parser.add_argument("--stall-seconds", type=float, default=60.0, help="reconnect after so long without a byte")
    parser.add_argument("--attempts", type=int, default=10, help="failures in a row, without a new byte, to give up")
    parser.add_argument("--retry-seconds", type=float, default=0.5, help="first pause; doubles up to a minute")
    parser.add_argument("--progress-seconds", type=float, default=5.0, help="time between two progress lines")
    parser.add_argument("--span-mib", type=int, default=64, help="files of twice this size are fetched in ranges")
    return parser
