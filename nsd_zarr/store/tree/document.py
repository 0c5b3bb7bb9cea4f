"""The root document of a tree: it repeats the metadata of the finished groups, and depends on these alone.

So xarray and zarr-python open the whole without listing folders and without a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nsd_zarr.errors import StoreError
from nsd_zarr.nsd import find_subject_name
from nsd_zarr.store.attributes import COMPLETE
from nsd_zarr.store.format import (
    CONVENTIONS,
    FORMAT,
    METADATA_NAME,
    Json,
    decode_root_metadata,
    encode_json,
    read_members,
    read_root_attributes,
)
from nsd_zarr.store.tree.groups import TREE_FORMAT, find_subjects, locate_group, parse_group, read_tree_root

TREE_TITLE = "Natural Scenes Dataset, single-trial betas, a group for each subject"
"""Root attribute `title` of a tree."""
TREE_VERSION = 1
"""Root attribute `format_version` of a tree. A reader refuses another one."""


def read_listed_subjects(tree: Path) -> tuple[int, ...]:
    """Subjects that the root document lists, ascending: those whose groups were finished. Raises StoreError."""
    try:
        data = read_tree_root(tree)
        attributes, members = read_root_attributes(data), read_members(data)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StoreError(
            f"the root document of the subjects cannot be read: {error}",
            hint="Make it again: nsd-zarr repair STORE --source SOURCE.",
            path=tree / METADATA_NAME,
        ) from error
    if attributes.get("format_version") != TREE_VERSION:
        raise StoreError(
            f"format version {attributes.get('format_version')}, expected {TREE_VERSION}",
            hint="Update nsd-zarr: pip install --upgrade nsd-zarr.",
            path=tree,
        )
    return tuple(sorted(subject for subject in map(parse_group, members) if subject is not None))


def make_tree_root(tree: Path) -> bytes:
    """The root document of the groups that are there: the same groups, the same bytes.

    Groups that are not finished are left out. Of one whose own root document is lost or damaged it says what it said
    before: that comes back by a repair.
    """
    former = _read_former(tree)
    members: Json = {}
    for subject in sorted({*find_subjects(tree), *former}):
        found = _describe_group(tree, subject)
        if found is None and locate_group(tree, subject).is_dir():
            found = former.get(subject)
        members |= found or {}
    return encode_json(_make_document(members))


def _read_former(tree: Path) -> dict[int, Json]:
    """What the present root document says of each group; nothing where it cannot be read."""
    former: dict[int, Json] = {}
    with suppress(OSError, ValueError, LookupError, TypeError):
        for key, document in read_members(read_tree_root(tree)).items():
            subject = parse_group(key.split("/")[0])
            if subject is not None:
                former.setdefault(subject, {})[key] = document
    return former


def _make_document(members: Mapping[str, Json]) -> Json:
    attributes = {
        "Conventions": CONVENTIONS,
        "title": TREE_TITLE,
        "references": "Allen et al. 2022, Nature Neuroscience, https://doi.org/10.1038/s41593-021-00962-x",
        "format": TREE_FORMAT,
        "format_version": TREE_VERSION,
    }
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes,
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": dict(members)},
    }


def _describe_group(tree: Path, subject: int) -> Json | None:
    """Metadata of a subject's group and of its arrays, by path inside the tree; none where it is not finished.

    None where its root document cannot be read.
    """
    name = find_subject_name(subject)
    try:
        data = read_tree_root(tree / name)
        attributes, members = decode_root_metadata(data), read_members(data)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if attributes.get("format") != FORMAT or attributes.get("status") != COMPLETE:
        return {}
    attributes.pop("manifest", None)  # Thousands of files, for those who check the group itself.
    group: Json = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return {name: group} | {f"{name}/{array}": document for array, document in members.items()}
