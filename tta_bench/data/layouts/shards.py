# SPDX-License-Identifier: Apache-2.0
"""WebDataset shards: uncompressed tar files whose members share a key, one image and one label each."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.base import Index, spread
from tta_bench.data.layouts.walk import is_image, utf8
from tta_bench.errors import BadInputError

if TYPE_CHECKING:
    from tta_bench.data.images.files import Member
    from tta_bench.data.images.source import ImageSource
    from tta_bench.data.layouts.reading import Reading


MOST_LABEL = 64
"""Bytes of a label that are read; a number has fewer."""
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def shards_in(path: Path) -> tuple[Path, ...]:
    """Return the tar files of a folder in the order of their names, or the one tar file that is named.

    Raises:
        BadInputError: If there is none.
    """
    shards = (path,) if path.is_file() else tuple(sorted(one for one in path.glob("*.tar") if one.is_file()))
    packed = (
        [] if path.is_file() else sorted(one.name for one in path.glob("*") if one.name.endswith(COMPRESSED))
    )
    if packed:
        raise BadInputError(
            f"{path} holds compressed shards ({', '.join(packed[:3])}), which are not read in place; unpack them to "
            ".tar first"
        )
    if not shards:
        raise BadInputError(
            f"wds:FOLDER expects a folder with .tar shards, got {str(path)!r}; check the path"
        )
    return shards


def open_shards(shards: Sequence[Path], classes: int, shift: Shift, reading: Reading) -> ImageSource:
    """Return the images of all shards in rounds over the classes; ids are shard and key.

    Raises:
        BadInputError: If a shard is compressed or no tar file, an image has no label or a label no image, or two
            images or two labels share a key.
    """
    from tta_bench.data.images.encoded import EncodedImages
    from tta_bench.data.images.files import Members

    members: list[Member] = []
    index = Index(Path(), [], [], [])
    for shard in shards:
        images, found = _members(shard)
        if lonely := sorted(set(found) - set(images)):
            raise BadInputError(
                f"{shard} must have an image for every label, but {len(lonely)} labels have none that is read "
                f"({lonely[0]}.cls); save the images as JPEG, PNG or WebP"
            )
        for key, member in images.items():
            label = found.get(key, "nothing")
            if not label.isdecimal() or int(label) >= classes:
                raise BadInputError(
                    f"{shard}:{member.name} must have a label from 0 to {classes - 1} in a .cls member, got {label}; "
                    "check that the class names belong to these shards"
                )
            index.files.append(str(len(members)))
            members.append(member)
            index.ids.append(utf8(f"{shard.stem}/{key}", shard))
            index.labels.append(int(label))
    order = spread(index, classes)
    return EncodedImages(
        Members([members[int(place)] for place in order.files]), order.ids, order.labels, shift, reading
    )


def _members(shard: Path) -> tuple[dict[str, Member], dict[str, str]]:
    """Return the images and labels of a shard by key; nothing is unpacked."""
    from tta_bench.data.images.files import Member

    images: dict[str, Member] = {}
    labels: dict[str, str] = {}
    names: dict[tuple[str, bool], str] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                name = Path(member.name).name
                image = is_image(name)
                if member.isdir() or name.startswith(".") or not (image or name.endswith(".cls")):
                    continue
                key = _key(member.name)
                _refuse(shard, member, names.get((key, image)))
                names[key, image] = member.name
                if image:
                    images[key] = Member(str(shard), member.name, member.offset_data, member.size)
                else:
                    content = archive.extractfile(member)
                    assert content is not None
                    labels[key] = content.read(MOST_LABEL).decode("utf-8-sig", "replace").strip()
    except BadInputError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        raise BadInputError(
            f"{shard} must be an uncompressed tar file, but {error}; unpack it with gunzip or fetch it again"
        ) from error
    return images, labels


def _refuse(shard: Path, member: tarfile.TarInfo, first: str | None) -> None:
    """Refuse a member that is no file of its own, or that shares its key and kind with an earlier one."""
    if not member.isfile():
        raise BadInputError(
            f"{shard}:{member.name} must be a file, got a link or a device; pack the shard again with the files "
            "themselves"
        )
    if first is not None:
        raise BadInputError(
            f"{shard} holds {first} and {member.name} under one key, {_key(member.name)!r}: a key ends at the first "
            "dot of the file name; name the files without further dots, and only once"
        )


def _key(name: str) -> str:
    """Return what members of one sample share: the path up to the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"
