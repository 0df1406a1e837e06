"""Another account for a server that refuses root, and places that this account can reach."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from devstack.processes import Account

PREFERRED = ("nobody", "daemon", "bin")
OUTSIDE = Path("/var/tmp")  # noqa: S108 - keeps its files over a reboot; every entry made there is checked


class AccountError(Exception):
    """Root has no other user to run the server as."""


def account_for_server() -> Account | None:
    """None for an ordinary user; for root some other account of this machine."""
    if os.geteuid() != 0:
        return None
    entries = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    if not entries:
        raise AccountError("PostgreSQL does not run as root, and this machine has no other user; be one")
    chosen = next((entries[name] for name in PREFERRED if name in entries), next(iter(entries.values())))
    return Account(chosen.pw_uid, chosen.pw_gid)


def reaches(account: Account, path: Path) -> bool:
    """Whether `account` can enter the folder `path`, or run the file `path`. Only root may ask."""
    probe = subprocess.run(
        ["test", "-x", str(path)], user=account.uid, group=account.gid, extra_groups=[], cwd="/", check=False
    )
    return probe.returncode == 0


def reachable_home(account: Account | None, wanted: Path) -> Path:
    """An empty or existing folder for `account`'s data: `wanted`, or, when the way there is closed, a place outside.

    The place outside depends on `wanted` alone, and a link at `wanted` leads there.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    if account is None:
        return wanted
    if wanted.is_symlink():
        home = wanted.readlink()
    elif reaches(account, wanted.parent):
        return wanted
    else:
        home = OUTSIDE / f"beatline-{hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]}" / wanted.name
        wanted.symlink_to(home)
    _own_folder(home.parent, mode=0o711)
    return home


def discard_home(home: Path) -> None:
    """Remove a folder that `reachable_home` gave, its link and what the link leads to."""
    if home.is_symlink():
        target = home.readlink()
        home.unlink()
        if target.parent.parent == OUTSIDE and target.parent.name.startswith("beatline-"):
            shutil.rmtree(target.parent, ignore_errors=True)
    elif home.exists():
        shutil.rmtree(home)


def reachable_copy(account: Account | None, program: Path, trees: tuple[Path, ...], tag: str) -> Path:
    """`program`, where `account` can run it: in place, or in a copy of `trees`, the first of which holds it."""
    if account is None or reaches(account, program):
        return program
    place = OUTSIDE / f"beatline-{tag}"
    copied = place / trees[0].name / program.relative_to(trees[0])
    if place.exists():
        _check_own(place)
        if reaches(account, copied):
            return copied
        # Whatever cleans this place of old files has been here.
        shutil.rmtree(place)
    with tempfile.TemporaryDirectory(dir=OUTSIDE, prefix="beatline-copy-") as scratch:
        made = Path(scratch) / "trees"
        for tree in trees:
            shutil.copytree(tree, made / tree.name, ignore=shutil.ignore_patterns("include", "__pycache__", "*.a"))
        _open_to_all(made)
        with contextlib.suppress(OSError):  # somebody else was faster
            made.rename(place)
    _check_own(place)
    return copied


def _own_folder(path: Path, mode: int) -> None:
    path.mkdir(mode=mode, exist_ok=True)
    _check_own(path)
    path.chmod(mode)


def _check_own(path: Path) -> None:
    # The parent is open to all: somebody else's folder or link of this name must not be trusted.
    state = path.lstat()
    if path.is_symlink() or not path.is_dir() or state.st_uid != os.geteuid():
        raise AccountError(f"{path} belongs to somebody else; remove it and start again")


def _open_to_all(tree: Path) -> None:
    tree.chmod(0o755)
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
