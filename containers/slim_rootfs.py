"""Lay out the root file system of a `FROM scratch` image that runs one virtual environment.

    python containers/slim_rootfs.py --root /rootfs --venv /opt/venv [--drop GLOB ...]

Run it in a build stage, with the interpreter that the environment was made with. It

1. trims the environment in place: what `--drop` names below site-packages, tests, activation scripts, debug symbols;
2. copies the interpreter, the standard library less what a service never runs, time zones and certificates;
3. compiles both to bytecode that is never checked against its source, since layers do not keep times;
4. copies every shared library that ldd finds for any of it, and writes the loader's cache;
5. leaves the records of the Debian packages concerned in var/lib/dpkg/status.d, where scanners look for them;
6. fails if any file of the result is set-user-id, set-group-id or carries capabilities.

The caller copies the root and the environment into the final stage. Needs `strip` (binutils) and the standard library.
"""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import py_compile
import re
import shutil
import ssl
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

# What a service never imports. Names of entries directly in the standard library's folder.
STDLIB_DROP = re.compile(
    r"^(__pycache__|(site|dist)-packages|config-.*|curses|distutils|ensurepip|idlelib|lib2to3|pydoc_data|test|tkinter|"
    r"turtle.*|venv)$"
)
EXTENSION_DROP = re.compile(r"^(_test|_ctypes_test|_curses|_dbm|_gdbm|_tkinter|_xx|xx|nis\.|ossaudiodev|readline)")
VENV_DROP = ("**/tests",)
# Loaded by name at run time, so that no ldd shows it: without it pthread_exit aborts the process.
EXTRA_LIBRARIES = ("libgcc_s.so.1",)
DATA_PACKAGES = ("tzdata", "ca-certificates")
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
USER, UID = "beatline", 10001
LDD_PATH = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)")
BATCH = 64


def run(*command: str) -> str:
    """The command's standard output; its failures are the caller's to judge by what is missing from it."""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def site_packages(venv: Path) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)}))


def trim_environment(venv: Path, patterns: Iterable[str]) -> None:
    """Delete what the patterns name below site-packages. A pattern that names nothing is a mistake: exit."""
    site = site_packages(venv)
    for pattern in patterns:
        found = sorted(site.glob(pattern))
        if not found:
            sys.exit(f"slim_rootfs: nothing below {site} is called {pattern!r}")
        for path in found:
            remove(path)
    for pattern in VENV_DROP:
        for path in sorted(site.glob(pattern)):
            remove(path)
    for path in [*(venv / "bin").glob("[Aa]ctivate*"), venv / "include"]:
        remove(path)


def make_skeleton(root: Path) -> None:
    """Folders and the few files of /etc that libc asks for. Merged /usr, as Debian has it."""
    for folder in ("etc", "run", "usr/bin", "usr/lib", "usr/lib64", "usr/local/lib", "var/lib/dpkg/status.d"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (root / folder).mkdir(parents=True)
        (root / folder).chmod(0o1777)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text(
        f"root:x:0:0:root:/root:/sbin/nologin\n{USER}:x:{UID}:{UID}:{USER}:/tmp:/sbin/nologin\n"
    )
    (root / "etc/group").write_text(f"root:x:0:\n{USER}:x:{UID}:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    shutil.copy2("/etc/os-release", root / "etc/os-release")


def copy_interpreter(root: Path) -> None:
    binary = Path(sys.executable).resolve()
    target = root / binary.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(binary, target)
    for name in ("python3", "python"):
        if name != binary.name:
            (target.parent / name).symlink_to(binary.name)


def copy_standard_library(root: Path) -> Path:
    source = Path(sysconfig.get_path("stdlib"))

    def ignored(folder: str, names: list[str]) -> set[str]:
        if Path(folder) == source:
            return {name for name in names if STDLIB_DROP.match(name)}
        if Path(folder) == source / "lib-dynload":
            return {name for name in names if EXTENSION_DROP.match(name)}
        return {name for name in names if name in {"__pycache__", "tests"}}

    target = root / source.relative_to("/")
    shutil.copytree(source, target, symlinks=True, ignore=ignored)
    return target


def copy_data(root: Path) -> None:
    """Every time zone, and the certificates at the place where this OpenSSL looks for them."""
    unused = shutil.ignore_patterns("posix", "right", "localtime", "posixrules")
    shutil.copytree("/usr/share/zoneinfo", root / "usr/share/zoneinfo", symlinks=True, ignore=unused)
    bundle = root / CA_BUNDLE.relative_to("/")
    bundle.parent.mkdir(parents=True)
    shutil.copy2(CA_BUNDLE, bundle)
    default = Path(ssl.get_default_verify_paths().openssl_cafile)
    place = root / default.relative_to("/")
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(CA_BUNDLE)


def compile_tree(folder: Path, shown_as: Path) -> None:
    """Compile `folder`, recording `shown_as` for tracebacks. A file in a newer syntax than ours is left as it is."""
    for old in sorted(folder.rglob("__pycache__")):
        remove(old)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(
        folder, maxlevels=50, quiet=2, workers=0, stripdir=folder, prependdir=shown_as, invalidation_mode=mode
    )


def elf_files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def strip_symbols(site: Path) -> None:
    """Cut the debug symbols out of the extension modules: a quarter of an API's environment."""
    # Wheels carry copied libraries in NAME.libs, rewritten by tools whose output strip can break: those stay.
    names = [str(path) for path in elf_files(site) if not any(part.endswith(".libs") for part in path.parts)]
    for start in range(0, len(names), BATCH):
        subprocess.run(["strip", "--strip-debug", *names[start : start + BATCH]], check=True)


def needed_libraries(files: Iterable[Path], own: Iterable[Path]) -> set[Path]:
    """The libraries of this stage that `files` load, less those that lie in the folders `own`."""
    names = [str(path) for path in files]
    listing = "".join(run("ldd", *names[start : start + BATCH]) for start in range(0, len(names), BATCH))
    missing = sorted({line.split()[0] for line in listing.splitlines() if line.endswith("=> not found")})
    if missing:
        print(f"slim_rootfs: no library here is called {', '.join(missing)}")
    cache = run("ldconfig", "-p")
    extra = [line.split("=> ")[1] for line in cache.splitlines() if line.strip().startswith(EXTRA_LIBRARIES)]
    found = {Path(match) for match in LDD_PATH.findall(listing)} | {Path(path) for path in extra}
    return {path for path in found if not any(path.is_relative_to(folder) for folder in own)}


def copy_libraries(root: Path, libraries: Iterable[Path]) -> set[Path]:
    """Copy each library and the file behind its name; return the real paths, for the package records."""
    real: set[Path] = set()
    for library in sorted(libraries):
        name = library.parent.resolve() / library.name
        target = name.resolve()
        real.add(target)
        for path in {name, target}:
            place = root / path.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                shutil.copy2(path, place, follow_symlinks=path == target)
    folders = sorted({str(path.parent) for path in real})
    (root / "etc/ld.so.conf").write_text("".join(f"{folder}\n" for folder in folders))
    subprocess.run(["ldconfig", "-r", str(root)], check=True)
    return real


def packages_of(paths: Iterable[Path]) -> set[str]:
    """The Debian packages that brought these files; none for what the Python image itself built."""
    packages: set[str] = set()
    for path in paths:
        # dpkg knows a file by the name it was packed with, before or after the merge of /usr.
        for name in (str(path), str(path).removeprefix("/usr")):
            owner = run("dpkg-query", "--search", name).partition(": ")[0]
            packages.update(part.strip() for part in owner.split(",") if part.strip())
    return packages


def record_packages(root: Path, packages: Iterable[str]) -> None:
    for package in sorted(packages):
        name = package.partition(":")[0]
        record = run("dpkg-query", "--status", package)
        if not record:
            sys.exit(f"slim_rootfs: dpkg knows no package {package}")
        (root / "var/lib/dpkg/status.d" / name).write_text(record)
        licence = Path("/usr/share/doc") / name / "copyright"
        if licence.exists():
            (root / licence.relative_to("/")).parent.mkdir(parents=True)
            shutil.copy2(licence, root / licence.relative_to("/"), follow_symlinks=True)


def refuse_privileges(*folders: Path) -> None:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            special = path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)
            if special or "security.capability" in os.listxattr(path):
                sys.exit(f"slim_rootfs: {path} would run with more rights than its caller")


def megabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Root file system of a FROM scratch image for a virtual environment.")
    parser.add_argument("--root", type=Path, required=True, help="folder to make; must not exist")
    parser.add_argument("--venv", type=Path, required=True, help="the environment, trimmed in place")
    parser.add_argument("--drop", action="append", default=[], metavar="GLOB", help="delete below site-packages")
    options = parser.parse_args()
    root, venv = options.root, options.venv
    root.mkdir(parents=True)
    trim_environment(venv, options.drop)
    strip_symbols(site_packages(venv))
    make_skeleton(root)
    copy_interpreter(root)
    library = copy_standard_library(root)
    copy_data(root)
    compile_tree(library, Path("/") / library.relative_to(root))
    compile_tree(site_packages(venv), site_packages(venv))
    real = copy_libraries(root, needed_libraries(elf_files(root, venv), (root, venv)))
    record_packages(root, packages_of(real) | set(DATA_PACKAGES))
    refuse_privileges(root, venv)
    print(
        f"slim_rootfs: Python {platform.python_version()}, {len(real)} libraries; "
        f"root {megabytes(root):.1f} MB, environment {megabytes(venv):.1f} MB"
    )


if __name__ == "__main__":
    main()
