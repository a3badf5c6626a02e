"""``install.py EXTRA[,EXTRA]``: installs modelswarm with these extras into a virtual environment of its own.

With ``build/wheels`` in the build context nothing else is used, and no network; pip itself is one of the wheels then.
Without it, the base image's pip asks its package index. Both obey ``constraints.txt``.

What comes out depends on the packages alone: no times in the compiled files (and so no look at the sources' times when
they are imported), no programs but ours, no pip.
"""

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import venv
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3]
WHEELS = SOURCE / "build" / "wheels"
PLACE = Path("/opt/modelswarm")
KEPT_PROGRAMS = ("python", "python3", "modelswarm")


def install(extras: str) -> None:
    venv.create(PLACE, with_pip=False, symlinks=True)
    python = str(PLACE / "bin" / "python3")
    pips = sorted(WHEELS.glob("pip-*.whl"))
    command = [python, f"{pips[-1]}/pip"] if pips else [sys.executable, "-m", "pip", "--python", python]
    command += ["install", "--no-compile", "--no-cache-dir", "--disable-pip-version-check", "--no-warn-script-location"]
    command += ["--root-user-action=ignore", "--progress-bar=off", f"--constraint={SOURCE / 'constraints.txt'}"]
    if pips:
        command += ["--no-index", f"--find-links={WHEELS}"]
    subprocess.run([*command, f"{SOURCE}[{extras}]"], check=True)


def tidy() -> None:
    for program in (PLACE / "bin").iterdir():
        if program.name not in KEPT_PROGRAMS:
            program.unlink()
    shutil.rmtree(PLACE / "include", ignore_errors=True)


def compile_all() -> None:
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    # A package may carry templates that are no Python: what does not compile is left as it is.
    compileall.compile_dir(str(PLACE), quiet=2, invalidation_mode=mode, maxlevels=50, workers=0)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        sys.exit("PYTHONHASHSEED must be 0: the order of sets is part of what is compiled")
    install(sys.argv[1])
    tidy()
    compile_all()
