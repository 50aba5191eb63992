"""Whether files are this user's alone to write: what somebody else put there is not trusted.

Whoever can write to a session store is whoever they like in the application. So a store that keeps
sessions in files asks, before it opens them, who could have put them there. Root is trusted, by
root alone too: a folder of another user is that user's to read and to write.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from nocookie.errors import StoreError

__all__ = ["check_file", "check_folder", "check_way", "may_be_read"]

_OTHERS: Final = stat.S_IWOTH
_GROUP_AND_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH

#: Windows has other rights than these.
_HAS_MODES: Final = os.name == "posix"


def check_way(path: str) -> None:
    """Refuse a folder above *path* that anybody may write to, where they could put another in the
    place of *path*. In one with the sticky bit, such as /tmp, only owners can.

    Raises `StoreError`; OSError where that cannot be seen.
    """
    if not _HAS_MODES:
        return
    ways = {os.path.dirname(path), os.path.dirname(os.path.realpath(path))}
    for way in ways:
        while True:
            above = _stat(way)
            if above is not None and above.st_mode & _OTHERS and not above.st_mode & stat.S_ISVTX:
                raise StoreError(
                    "the file store: anybody may write to a folder above data_dir, and so replace "
                    "it: take that right away (chmod o-w), or name another data_dir"
                )
            if way == os.path.dirname(way):
                break
            way = os.path.dirname(way)


def check_folder(path: str, name: str, *, sticky: bool = False) -> os.stat_result | None:
    """Refuse a folder that is not ours, or that others may write to; with *sticky*, one with the
    sticky bit is taken, and one that a link leads to. *name* is what it is called in the sentence.
    Return what was seen of it; None if it is missing, or the system has no modes.

    Raises `StoreError`; OSError where that cannot be seen.
    """
    found = _stat(path) if sticky else _lstat(path)
    if found is None or not _HAS_MODES:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise StoreError(
            f"the file store: {name} is a link, and none is followed: name as data_dir the folder "
            "that holds what it leads to"
        )
    _check_owner(found, name)
    if not (sticky and found.st_mode & stat.S_ISVTX):
        _check_mode(found, name)
    return found


def check_file(path: str, name: str) -> os.stat_result | None:
    """Refuse a file that is a link, none at all, not ours, or that others may write to. Return
    what was seen of it; None if it is missing, or the system has no modes.

    Raises `StoreError`; OSError where that cannot be seen.
    """
    found = _lstat(path)
    if found is None or not _HAS_MODES:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise StoreError(
            f"the file store: {name} is a link, and none is followed: put the file itself there, "
            "or name another data_dir"
        )
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"the file store: {name} is no file: take it away")
    _check_owner(found, name)
    _check_mode(found, name)
    return found


def may_be_read(folder: os.stat_result, file: os.stat_result) -> bool:
    """Whether others than the owner may read a file in a folder."""
    return bool(folder.st_mode & (stat.S_IXGRP | stat.S_IXOTH)) and bool(
        file.st_mode & (stat.S_IRGRP | stat.S_IROTH)
    )


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _check_owner(found: os.stat_result, name: str) -> None:
    user = os.geteuid()
    if found.st_uid in (user, 0):
        return
    raise StoreError(
        f"the file store: {name} belongs to another user ({found.st_uid}) than this process "
        f"({user}), who could read and write every session: run as that user, or give it to this "
        "one (chown)"
    )


def _check_mode(found: os.stat_result, name: str) -> None:
    others = found.st_mode & _GROUP_AND_OTHERS
    if others == stat.S_IWGRP and _is_private(found.st_gid):
        return
    if others:
        raise StoreError(
            f"the file store: others than its owner may write to {name}: take that right away "
            "(chmod go-w), or name a folder in it as data_dir"
        )


def _is_private(group: int) -> bool:
    """Whether this is the group that many systems make for a user alone, by the user's name: with
    one, they let it write to what the user makes."""
    import grp
    import pwd

    try:
        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    members = set(found.gr_mem)
    return user.pw_gid == group and found.gr_name == user.pw_name and members <= {user.pw_name}
