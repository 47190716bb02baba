# SPDX-License-Identifier: Apache-2.0
"""WebDataset shards: uncompressed tar files whose members share a key, one picture and one label each."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.walk import is_image, utf8
from tta_bench.errors import BadInputError

if TYPE_CHECKING:
    from tta_bench.data.images.files import Member
    from tta_bench.data.images.source import ImageSource
    from tta_bench.data.layouts.reading import Reading


def shards_in(path: Path) -> tuple[Path, ...]:
    """Return the tar files of a folder in the order of their names, or the one tar file that is named.

    Raises:
        BadInputError: If there is none.
    """
    shards = (path,) if path.is_file() else tuple(sorted(one for one in path.glob("*.tar") if one.is_file()))
    if not shards:
        raise BadInputError(
            f"wds:FOLDER expects a folder with .tar shards, got {str(path)!r}; check the path"
        )
    return shards


def open_shards(shards: Sequence[Path], classes: int, shift: Shift, reading: Reading) -> ImageSource:
    """Return the pictures of all shards in their order.

    Raises:
        BadInputError: If a shard is compressed or no tar file, or a picture has no label.
    """
    from tta_bench.data.images.encoded import PictureImages
    from tta_bench.data.images.files import Members

    members: list[Member] = []
    ids: list[str] = []
    labels: list[int] = []
    for shard in shards:
        pictures, found = _members(shard)
        for key, member in pictures.items():
            label = found.get(key, "nothing")
            if not label.isdecimal() or int(label) >= classes:
                raise BadInputError(
                    f"{shard}:{member.name} must have a label from 0 to {classes - 1} in a .cls member, got {label}; "
                    "check that the class names belong to these shards"
                )
            members.append(member)
            ids.append(utf8(f"{shard.stem}/{key}", shard))
            labels.append(int(label))
    return PictureImages(Members(members), ids, labels, shift, reading)


def _members(shard: Path) -> tuple[dict[str, Member], dict[str, str]]:
    """Return the pictures and labels of a shard by key; nothing is unpacked."""
    from tta_bench.data.images.files import Member

    pictures: dict[str, Member] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                key = _key(member.name)
                if member.isfile() and is_image(Path(member.name).name):
                    pictures[key] = Member(str(shard), member.name, member.offset_data, member.size)
                elif member.isfile() and member.name.endswith(".cls"):
                    content = archive.extractfile(member)
                    assert content is not None
                    labels[key] = content.read().decode("ascii", "replace").strip()
    except (tarfile.TarError, OSError) as error:
        raise BadInputError(
            f"{shard} must be an uncompressed tar file, but {error}; unpack it with gunzip or fetch it again"
        ) from error
    return pictures, labels


def _key(name: str) -> str:
    """Return what members of one sample share: the path up to the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"
