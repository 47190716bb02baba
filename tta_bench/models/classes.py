# SPDX-License-Identifier: Apache-2.0
"""Which outputs of a classifier stand for the classes of a dataset: by map, name, wnid or number, else refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tta_bench.data.catalogue.names import imagenet_names, imagenet_wnids, is_wnid
from tta_bench.data.layouts.base import distinct
from tta_bench.data.layouts.locate import plain
from tta_bench.errors import IncompatibleError, nearest

PARENT = 1000
"""Classes of ImageNet-1k, which a model of so many outputs is taken to have."""
SHOWN = 5
Index = int | tuple[int, ...]


class Outputs(NamedTuple):
    """Facts about a classifier's outputs.

    Attributes:
        size: How many there are.
        names: Their names in order; empty: not known.
        wnids: Their WordNet ids in order; empty: not known.
    """

    size: int
    names: tuple[str, ...] = ()
    wnids: tuple[str, ...] = ()


class Matched(NamedTuple):
    """Outputs found for classes.

    Attributes:
        indices: One output for each class, or several of which the largest counts.
        by: ``map``, ``name``, ``wnid``, ``number``, or ``order`` where nothing says which is which.
    """

    indices: tuple[Index, ...]
    by: str


def display_names(
    folders: Sequence[str], names: Sequence[str], class_map: Mapping[str, str]
) -> tuple[str, ...] | None:
    """Return what classes are called in tables and prompts where options say more than their folders do.

    Args:
        folders: Of the classes.
        names: Of the model's outputs; empty: not known.
        class_map: Class folder to output.

    Returns:
        One name per class; None where the folders' own names will do.
    """
    known = {str(number): name for number, name in enumerate(names)}
    by_wnid = dict(zip(imagenet_wnids(), imagenet_names(), strict=True)) if any(map(is_wnid, folders)) else {}
    told = []
    for folder in folders:
        meant = class_map.get(folder, folder)
        name = known.get(meant, folder if meant.isdecimal() or ";" in meant else meant)
        told.append(by_wnid.get(name, name))
    same = told == list(folders) or len(set(told)) < len(told)
    return None if same else tuple(told)


def known_outputs(count: int, names: Sequence[str] = (), wnids: Sequence[str] = ()) -> Outputs:
    """Return what is known of a classifier's outputs; a thousand without names are those of ImageNet-1k.

    Raises:
        IncompatibleError: If there are as many outputs as names are given for.
    """
    if names and len(names) != count:
        raise IncompatibleError(
            f"class_names must name each of the model's {count:,} outputs, got {len(names):,} names; complete the file",
            options=("class_names",),
        )
    if not names and not wnids and count == PARENT:
        return Outputs(count, imagenet_names(), imagenet_wnids())
    return Outputs(count, tuple(names), tuple(wnids))


def match_classes(
    folders: Sequence[str], outputs: Outputs, class_map: Mapping[str, str], where: str
) -> Matched:
    """Return which output stands for each class.

    A map decides where there is one; then the names of all outputs, WordNet ids, or output numbers that the folders
    bear. A model of which nothing is known is taken to have the classes in the order of their folders' names, as it has
    if it was trained on such folders, but only where it has as many outputs.

    Args:
        folders: What the classes are called on disk.
        outputs: What is known of the outputs.
        class_map: Class folder to output: number, name or wnid, several joined by ``;``.
        where: The model, for sentences.

    Raises:
        IncompatibleError: If an output for some class cannot be found, or one stands for two classes.
    """
    if class_map:
        found = Matched(tuple(_mapped(one, outputs, class_map, where) for one in folders), "map")
    else:
        found = _by_names(folders, outputs) or _by_order(folders, outputs, where)
    owners: dict[int, str] = {}
    for folder, index in zip(folders, found.indices, strict=True):
        for one in (index,) if isinstance(index, int) else index:
            if owners.setdefault(one, folder) != folder:
                raise IncompatibleError(
                    f"the classes {owners[one]!r} and {folder!r} are both output {one} of {where}; give every class "
                    "outputs of its own with class_map=",
                    options=("class_map",),
                )
    return found


def _by_names(folders: Sequence[str], outputs: Outputs) -> Matched | None:
    """Return the outputs that bear the names, wnids or numbers of all folders; None where some do not."""
    for by, known in (("name", outputs.names), ("wnid", outputs.wnids)):
        table = _table(known)
        if known and all(one in table for one in folders):
            return Matched(tuple(table[one] for one in folders), by)
        loose = {plain(name): number for name, number in table.items()} if distinct(list(table)) else {}
        if known and all(plain(one) in loose for one in folders):
            return Matched(tuple(loose[plain(one)] for one in folders), by)
    if all(one.isdecimal() and int(one) < outputs.size for one in folders):
        return Matched(tuple(map(int, folders)), "number")
    return None


def _table(names: Sequence[str]) -> dict[str, int]:
    """Return the number of each name that only one output bears: some of ImageNet's names stand for two."""
    once = [name for name in names if names.count(name) == 1] if len(set(names)) < len(names) else names
    return {name: number for number, name in enumerate(names) if name in set(once)}


def _by_order(folders: Sequence[str], outputs: Outputs, where: str) -> Matched:
    """Return the outputs in order for a model that says nothing of them.

    Raises:
        IncompatibleError: If it has other classes, or another number of them.
    """
    known = [*outputs.names, *outputs.wnids]
    if known:
        absent, table = _absent(folders, outputs), list(_table(outputs.names or outputs.wnids))
        raise IncompatibleError(
            f"no output of {where} is called {absent!r}, as a class of the dataset is{_near(absent, table)}; map each "
            "class to an output with class_map=",
            options=("class_map",),
        )
    if outputs.size == len(folders):
        return Matched(tuple(range(outputs.size)), "order")
    raise IncompatibleError(
        f"{where} has {outputs.size:,} outputs and the dataset {len(folders):,} classes ({_some(folders)}), and "
        "nothing says which output stands for which class; name the outputs with class_names=, or map the classes with "
        "class_map=",
        options=("class_names", "class_map"),
    )


def _absent(folders: Sequence[str], outputs: Outputs) -> str:
    table = {plain(name) for name in (*_table(outputs.names), *_table(outputs.wnids))}
    return next((one for one in folders if plain(one) not in table), folders[0])


def _mapped(folder: str, outputs: Outputs, class_map: Mapping[str, str], where: str) -> Index:
    """Return the output, or several, that a map names for one class.

    Raises:
        IncompatibleError: If it names none, or one that the model does not have.
    """
    if folder not in class_map:
        raise IncompatibleError(
            f"class_map must name an output for every class of the dataset, got none for {folder!r}; add a line "
            f"'{folder},OUTPUT'",
            options=("class_map",),
        )
    several = tuple(_one(part.strip(), outputs, folder, where) for part in class_map[folder].split(";"))
    return several[0] if len(several) == 1 else several


def _one(text: str, outputs: Outputs, folder: str, where: str) -> int:
    if text.isdecimal() and int(text) < outputs.size:
        return int(text)
    for known in (outputs.names, outputs.wnids):
        if text in (table := _table(known)):
            return table[text]
    raise IncompatibleError(
        f"class_map must map {folder!r} to an output of {where} by its number, 0 to {outputs.size - 1}, or its name, "
        f"got {text!r}{_near(text, outputs.names)}; correct the line",
        options=("class_map",),
    )


def _near(name: str, known: Sequence[str]) -> str:
    """Return the phrase that names the nearest known names; empty without any."""
    told = nearest(name, known) if known else ""
    return f" ({told})" if told.startswith("did") else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
