"""Picks the root file system of the images out of a Debian system that has Python.

``root.py runtime DIRECTORY``: Python with its library, the C libraries that they need, certificate authorities, the
users, and for scanners and lawyers the records and licences of the Debian packages that the files come from. No shell,
no package manager, no pip: 15 MB compressed, and little that could need an update.

``root.py tools DIRECTORY RUNTIME``: what one needs to look around in a container (a shell, nslookup, nc, grep, ps and
so on), as far as RUNTIME does not have it.
"""

import compileall
import os
import py_compile
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path("/")
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# Of Python's library: what other programs need, not services. Each pattern is compared with the path in the library.
LEFT_OUT = (
    *("site-packages", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "sqlite3", "test", "tests"),
    *("tkinter", "turtledemo", "turtle.py", "config-*", "__phello__", "EXTERNALLY-MANAGED", "sitecustomize.py"),
    *("curses", "dbm/gnu.py", "dbm/ndbm.py", "nis.*", "ossaudiodev.*", "readline.*", "xxlimited*", "xxsubtype*"),
    *("_curses*", "_dbm.*", "_gdbm.*", "_sqlite3.*", "_test*", "_tkinter.*", "_xxtestfuzz*", "__pycache__"),
)
# Libraries that compiled Python packages need beyond those of Python itself.
LIBRARIES = (
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "libutil.so.1",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
)

FILES = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nmodelswarm:x:65532:65532:modelswarm:/tmp:/sbin/nologin\n",
    "etc/group": "root:x:0:\nmodelswarm:x:65532:\n",
    # Without it the C library would ask the name server before it looks into /etc/hosts.
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
DIRECTORIES = ("dev", "proc", "run", "sys", "tmp", "workspace")

APPLETS = (
    *(
        "awk",
        "cat",
        "cut",
        "date",
        "df",
        "dirname",
        "du",
        "echo",
        "env",
        "expr",
        "find",
        "free",
        "grep",
        "head",
        "hostname",
    ),
    *(
        "id",
        "kill",
        "ls",
        "md5sum",
        "nc",
        "netstat",
        "nslookup",
        "ping",
        "printf",
        "ps",
        "pwd",
        "readlink",
        "sed",
        "sh",
    ),
    *(
        "sha256sum",
        "sleep",
        "sort",
        "stat",
        "tail",
        "tar",
        "test",
        "timeout",
        "top",
        "tr",
        "traceroute",
        "uname",
        "uniq",
    ),
    *("uptime", "vi", "watch", "wc", "wget", "which", "xargs"),
)


class Root:
    """The new root, or a layer upon ``beneath``. Paths are those of the old one, where ``/lib`` may be a link."""

    def __init__(self, directory: Path, beneath: Path | None = None) -> None:
        self.directory = directory
        self.files: set[Path] = set()
        self._beneath = beneath

    def add(self, path: Path) -> None:
        """Copy a file with the libraries that it needs; of a link the link, and what it leads to."""
        place = path.parent.resolve() / path.name
        if place in self.files or (self._beneath and os.path.lexists(self._beneath / place.relative_to(ROOT))):
            return
        self.files.add(place)
        if place.is_symlink():
            self._link(place, os.readlink(place))
            self.add(place.parent / os.readlink(place))
            return
        shutil.copyfile(place, self._new(place))
        # Never more than this: no program in an image has any use for set-uid.
        self._new(place).chmod(0o755 if os.access(place, os.X_OK) and _is_program(place) else 0o644)
        for library in libraries(place):
            self.add(library)

    def write(self, path: Path, text: str) -> None:
        self._new(path).write_text(text)

    def link(self, path: Path, target: str) -> None:
        self._link(path.parent.resolve() / path.name, target)

    def _link(self, place: Path, target: str) -> None:
        new = self._new(place)
        if not new.is_symlink():
            new.symlink_to(target)

    def _new(self, place: Path) -> Path:
        new = self.directory / place.relative_to(ROOT)
        new.parent.mkdir(parents=True, exist_ok=True)
        return new


def libraries(path: Path) -> Iterator[Path]:
    """The shared libraries that a program or library is linked with, and the loader. Raises LookupError."""
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return
    told = subprocess.run(["ldd", str(path)], capture_output=True, text=True).stdout
    if "not found" in told:
        raise LookupError(f"{path} needs a library that this system does not have:\n{told}")
    yield from (Path(found) for found in re.findall(r"\s(/\S+) \(0x", told))


def _is_program(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(2)
    return start in (b"\x7fE", b"#!")


def add_runtime(root: Root) -> None:
    for name in DIRECTORIES:
        (root.directory / name).mkdir(parents=True, exist_ok=True)
    (root.directory / "tmp").chmod(0o1777)
    for name in MERGED:
        if (ROOT / name).is_symlink():
            root.link(ROOT / name, os.readlink(ROOT / name))
    for name, text in FILES.items():
        root.write(ROOT / name, text)
    add_python(root)
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for name in LIBRARIES:
        found = re.search(rf"^\s{re.escape(name)} .*=> (/\S+)$", known, re.MULTILINE)
        if found is None:
            raise LookupError(f"the base image has no {name}")
        root.add(Path(found[1]))
    root.add(CERTIFICATES)
    for path in ("/etc/ssl/openssl.cnf", "/etc/os-release", "/etc/debian_version"):
        if os.path.exists(path):
            root.add(Path(path))
    # Where OpenSSL looks for authorities by itself; the directory of single certificates is not there.
    root.link(Path(ssl.get_default_verify_paths().openssl_cafile), str(CERTIFICATES))
    record_packages(root)
    index_libraries(root)


def add_python(root: Root) -> None:
    # A link to it among programs, whatever it is called in the base.
    program = Path(sys.executable)
    root.add(program)
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*")):
        inside = path.relative_to(library)
        if not path.is_dir() and not any(left_out(part) for part in (inside, *inside.parents)):
            root.add(path)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    copy = root.directory / library.resolve().relative_to(ROOT)
    compileall.compile_dir(
        str(copy),
        quiet=2,
        invalidation_mode=mode,
        stripdir=str(root.directory),
        prependdir="/",
        maxlevels=50,
        workers=0,
    )


def left_out(part: Path) -> bool:
    return any(fnmatch(str(part), pattern) or fnmatch(part.name, pattern) for pattern in LEFT_OUT)


def index_libraries(root: Root) -> None:
    """The loader's index, for libraries outside the directories that it knows by itself (``/usr/local/lib``)."""
    for path in (Path("/etc/ld.so.conf"), *sorted(Path("/etc/ld.so.conf.d").glob("*.conf"))):
        if path.exists():
            root.add(path)
    subprocess.run(["ldconfig", "-X", "-r", str(root.directory)], check=True)
    shutil.rmtree(root.directory / "var" / "cache", ignore_errors=True)


def _found(program: str) -> Path:
    path = shutil.which(program)
    if path is None:
        raise LookupError(f"the base image has no {program}")
    return Path(path)


def record_packages(root: Root) -> None:
    """What Debian knows of the packages that files were taken from, as scanners look for it, and their licences."""
    owners: dict[str, str] = {}
    for listing in Path("/var/lib/dpkg/info").glob("*.list"):
        for line in listing.read_text().splitlines():
            owners[_merged(line)] = listing.name.removesuffix(".list").split(":")[0]
    # The bundle of authorities is made when its package is installed, and so in no list.
    owners[str(CERTIFICATES)] = "ca-certificates"
    packages = sorted({owners[str(file)] for file in root.files if str(file) in owners})
    paragraphs = {
        match[1]: paragraph
        for paragraph in Path("/var/lib/dpkg/status").read_text().split("\n\n")
        if (match := re.match(r"Package: (\S+)", paragraph.lstrip()))
    }
    for package in packages:
        root.write(Path("/var/lib/dpkg/status.d") / package, paragraphs[package].strip() + "\n")
        licence = Path("/usr/share/doc") / package / "copyright"
        if licence.exists():
            root.write(licence, licence.read_text(errors="replace"))


def _merged(path: str) -> str:
    """A path of a package's list as it is on a system where ``/lib`` is a link into ``/usr``."""
    top = path.split("/", 2)[1] if path.count("/") > 1 else ""
    return f"/usr{path}" if top in MERGED and (ROOT / top).is_symlink() else path


def add_tools(root: Root) -> None:
    # Debian's busybox has an nc that cannot just try a port.
    busybox, netcat = (_found(name) for name in ("busybox", "nc.openbsd"))
    root.add(busybox)
    root.add(netcat)
    root.link(Path("/usr/bin/nc"), str(netcat))
    offered = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in APPLETS:
        if applet not in offered:
            raise LookupError(f"this busybox has no {applet}")
        root.link(Path("/usr/bin") / applet, str(busybox))
    record_packages(root)


if __name__ == "__main__":
    what, directory, *beneath = sys.argv[1:]
    if os.environ.get("PYTHONHASHSEED") != "0":
        sys.exit("PYTHONHASHSEED must be 0: the order of sets is part of what is compiled")
    os.umask(0o022)
    {"runtime": add_runtime, "tools": add_tools}[what](Root(Path(directory), *map(Path, beneath)))
