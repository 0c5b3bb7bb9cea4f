"""What commands say, as text for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nsd_zarr.errors import StoreError
from nsd_zarr.layout import IMAGES, TRIALS, format_bytes, format_count
from nsd_zarr.source.find import format_sessions, name_sessions
from nsd_zarr.store.root import Store
from nsd_zarr.words import escape_line

if TYPE_CHECKING:
    from nsd_zarr.conversion.images import ImagesReport
    from nsd_zarr.conversion.run import ConversionReport
    from nsd_zarr.exports.run import ExportReport
    from nsd_zarr.maintenance.attach import AttachReport
    from nsd_zarr.maintenance.damage import Damage
    from nsd_zarr.maintenance.repair import RepairReport
    from nsd_zarr.maintenance.verify import VerifyReport

MAX_DAMAGES = 20
"""Damages listed one by one; --json has them all."""

MAX_FILES = 12
"""Files of an export that are listed by name."""
MAX_UNTRACKED_FILES = 5
"""Files that are not of a store, listed by name."""


def format_attachment(report: AttachReport) -> str:
    """What was attached to a store."""
    what = "statistics computed, " if report.computed_statistics else ""
    done = "experiment attached" if report.experiment.found else "no experiment"
    lines = [f"{report.store}: {what}{done} in {report.seconds:.1f} s.", *report.experiment.format_lines()]
    return "\n".join(lines)


def format_conversion(report: ConversionReport) -> str:
    """What a conversion did."""
    if report.parts:
        return "\n".join([*map(_format_conversion, report.parts), _format_next(report)])
    return _format_conversion(report) + (f"\n{_format_next(report)}" if report.sessions or report.completed else "")


def _format_next(report: ConversionReport) -> str:
    if report.part:
        return "Next: the other parts; then the same command without --part, which finishes"
    return f"Next: nsd-zarr verify {shlex.quote(str(report.store))}"


def _format_conversion(report: ConversionReport) -> str:
    kept = f"\nnote        {name_sessions(report.kept)} not in SOURCE: kept as stored" if report.kept else ""
    if report.part:
        return _format_part(report)
    if not report.sessions and not report.completed:
        return f"{report.store} is finished: nothing to do.{kept}"
    ratio = report.bytes_in / report.bytes_out
    sessions = format_count(len(report.sessions), "session")
    before = f" ({format_count(report.finished_before, 'session')} finished before)" if report.finished_before else ""
    return (
        f"{report.store}: {report.trials} trials, {format_bytes(report.bytes_in)} as {format_bytes(report.bytes_out)} "
        f"({ratio:.2f} times smaller), {sessions} in {report.seconds:.1f} s{before}.{kept}"
        + "".join(f"\n{line}" for line in report.experiment.format_lines())
    )


def _format_part(report: ConversionReport) -> str:
    done = f"{name_sessions(each.session for each in report.sessions)} done" if report.sessions else "nothing to do"
    before = f" ({format_count(report.finished_before, 'session')} finished before)" if report.finished_before else ""
    left = f"{name_sessions(report.left)} of the run are left" if report.left else "no session of the run is left"
    return f"{report.store}: part {report.part}: {done} in {report.seconds:.1f} s{before}; {left}."


def format_images(report: ImagesReport) -> str:
    """What a conversion of images did."""
    if not report.blocks:
        return f"{report.store} is finished: nothing to do."
    before = f" ({format_count(report.finished_before, 'block')} finished before)" if report.finished_before else ""
    return (
        f"{report.store}: {format_count(report.images, 'image')} of {report.shape}, {format_bytes(report.bytes_in)} as "
        f"{format_bytes(report.bytes_out)} ({report.bytes_in / report.bytes_out:.2f} times smaller), "
        f"{format_count(report.blocks, 'block')} in {report.seconds:.1f} s{before}.\n"
        f"Next: nsd-zarr verify {shlex.quote(str(report.store))}"
    )


def format_export(report: ExportReport) -> str:
    """What an export wrote."""
    if not report.written:
        return f"{report.folder} is finished: nothing to do."
    files = format_count(len(report.files), "file")
    return (
        f"{report.folder}: {format_count(report.samples, 'sample')} in {files}, {format_bytes(report.bytes)}, in "
        f"{report.seconds:.1f} s.\n" + "\n".join(f"  {name}" for name in report.files[:MAX_FILES])
    ) + (f"\n  and {len(report.files) - MAX_FILES} more" if len(report.files) > MAX_FILES else "")


def format_verification(report: VerifyReport) -> str:
    """What a verification found."""
    what = f"{report.files} files" + (f", {report.trials} {report.item}s" if report.trials else "")
    how = {"quick": "present, sizes and indexes right", "full": "all checksums and value digests right"}
    how["source"] = "all checksums and value digests right, every value equal to its source"
    lines = [f"{report.store} is damaged, {len(report.damages)} found:", *_format_damages(report.damages)]
    if not report.files:
        lines += ["Without it nothing else was looked at; repair looks at everything."]
    lines += [f"Repair it: {report.repair_command}"]
    if report.is_whole:
        lines = [f"{report.store} is whole: {what}, {how[report.strength]} ({report.seconds:.1f} s)."]
    if report.untracked_files:
        files = report.untracked_files
        named = ", ".join(files[:MAX_UNTRACKED_FILES]) + (", ..." if files[MAX_UNTRACKED_FILES:] else "")
        lines += [f"Note: {format_count(len(files), 'file')} not of this store, which no reader looks at: {named}"]
    return "\n".join(lines)


def _format_damages(damages: Sequence[Damage]) -> list[str]:
    listed = [f"  {damage}" for damage in damages[:MAX_DAMAGES]]
    more = len(damages) - len(listed)
    return [*listed, f"  and {more} more (--json has them all)"] if more else listed


def format_repair(report: RepairReport) -> str:
    """What a repair did."""
    removed = f"; {format_count(report.removed, 'leftover')} of a killed run removed" if report.removed else ""
    if not report.rewritten and report.is_whole:
        return f"{report.store} is whole: nothing to repair{removed} ({report.seconds:.1f} s)."
    made = f"{format_count(len(report.rewritten), 'file')} made again{removed} ({report.seconds:.1f} s)"
    if report.is_whole:
        return f"{report.store} is whole again: {made}."
    left = f"{report.store}: {made}; {len(report.left)} found damaged in sessions that were not asked for:"
    return "\n".join([left, *_format_damages(report.left)])


def describe_store(store: Store) -> dict[str, Any]:
    """What is in a store and what made it, as plain JSON."""
    geometry, kind = store.geometry, store.geometry.kind
    stored = sum(record.size for record in store.manifest.values())
    return {
        "store": str(store.path),
        "status": store.attributes.status,
        "format_version": store.attributes.format_version,
        "format_minor": store.attributes.format_minor,
        **({"sessions": [int(number) for number in geometry.sessions]} if kind == TRIALS else {}),
        f"{kind.item}s": geometry.trials,
        "shape": list(geometry.shape),
        "dtype": geometry.dtype,
        "arrays": {
            name: {"dims": list(member.dims), "shape": list(member.shape), "dtype": member.dtype}
            for name, member in store.members.items()
        },
        "files": len(store.manifest) + 1,
        "decoded_bytes": geometry.trials * geometry.trial_bytes,
        "stored_bytes": stored,
        "settings": dict(store.attributes.settings),
        "libraries": dict(store.attributes.libraries),
        "origin": dict(store.attributes.origin),
        "notes": [*store.attributes.notes, *store.attributes.experiment_notes],
        "sources": store.attributes.source_documents,
        "checksum": store.fingerprint,
    }


def format_store(store: Store) -> str:
    """What is in a store and what made it."""
    values = describe_store(store)
    version = f"{values['format_version']}.{values['format_minor']}"
    lines = [
        f"store      {values['store']}: {values['status']}, format version {version}",
        _format_contents(store),
        *_format_progress(store),
        f"stored     {format_bytes(values['stored_bytes'])} in {values['files']} files, "
        f"{format_bytes(values['decoded_bytes'])} decoded",
        f"settings   {_format_pairs(values['settings'])}",
        f"made by    {_format_pairs(values['libraries'])}",
    ]
    lines += [f"origin     {_format_pairs(values['origin'])}"] if values["origin"] else []
    lines += [f"note       {note}" for note in values["notes"]]
    widest = max(18, *map(len, values["arrays"]))
    lines += ["arrays"] + [
        f"  {name:{widest}} {array['dtype']:8} ({', '.join(array['dims'])}) {tuple(array['shape'])}"
        for name, array in values["arrays"].items()
    ]
    lines += ["sources"] if values["sources"] else []
    for source in values["sources"]:
        part = store.geometry.kind.part
        lines.append(
            f"  {part} {source[part]:02d}  {source['name']}  {source['size']} bytes  values {source['digest']}"
        )
    return "\n".join(map(escape_line, lines))


def _format_progress(store: Store) -> Iterator[str]:
    """Of a store that is not finished: what is done, who is writing, and what to type next."""
    if store.is_complete:
        return
    # Here: to say what is in a store takes none of the libraries that make one.
    from nsd_zarr.conversion.ledger import Ledger
    from nsd_zarr.conversion.lock import check_free

    ledger, geometry = Ledger(store.path), store.geometry
    try:
        done = [session for session in geometry.sessions if ledger.read_session(session) is not None]
        yield f"done       {len(done)} of {format_count(len(geometry.sessions), geometry.kind.part)}"
        check_free(store.path)
        yield "writing    nobody on this host"
        yield "Next: type the command again that began it; it goes on where it stopped"
    except StoreError as error:
        yield f"writing    {error.problem}"


def _format_contents(store: Store) -> str:
    geometry = store.geometry
    if geometry.kind == IMAGES:
        return f"images     {geometry.trials} of {geometry.volume_shape}, {geometry.trials_per_shard} a shard"
    return f"sessions   {format_sessions(geometry.sessions)}, {geometry.trials} trials"


def _format_pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
