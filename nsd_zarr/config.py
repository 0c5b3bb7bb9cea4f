"""One validated configuration from a YAML file and options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, ValidationError

from nsd_zarr.errors import ConfigError
from nsd_zarr.forms import FORM_NAMES
from nsd_zarr.layout import Part, parse_part
from nsd_zarr.nsd import BETAS_DATASET, HEMISPHERES
from nsd_zarr.options import SUBJECTS_EXAMPLE, parse_numbers, suggest
from nsd_zarr.resources import choose_memory_limit, count_cores

CODECS = ("lz4", "zstd", "lz4hc", "blosclz", "zlib")
"""Compressors inside Blosc that can be asked for."""
DEFAULT_CLEVELS = {"lz4": 5, "zstd": 3, "lz4hc": 5, "blosclz": 5, "zlib": 3}
"""Measured on realistic betas with byte shuffle, one core: lz4 level 5 gives ratio 2.0 to 2.1, encodes 1.1 GB/s and
decodes 4.6 GB/s, the best trade for training; zstd level 3 gives 2.6, 0.18 and 1.9 GB/s, the small choice."""

MAX_SUBJECT = 99
"""Names of folders have two digits for it."""


def parse_sessions(value: Any) -> Any:
    """Session numbers from "1-40", "1-3,5", a number, or an iterable of numbers, ascending; None stays None."""
    return None if value is None else parse_numbers(value, "session", "1-40 or 1-3,5")


def _parse_subjects(value: Any) -> Any:
    """Subject numbers, given as session numbers are; None stays None."""
    numbers = None if value is None else parse_numbers(value, "subject", SUBJECTS_EXAMPLE)
    if numbers and numbers[-1] > MAX_SUBJECT:
        raise ValueError(f"expected subject numbers up to {MAX_SUBJECT}")
    return numbers


def _parse_part(value: Any) -> Any:
    return parse_part(value) if isinstance(value, str) else value


def _parse_codec(value: Any) -> Any:
    if value not in CODECS:
        raise ValueError(f"expected one of {', '.join(CODECS)}")
    return value


def _parse_form(value: Any) -> Any:
    if value is not None and value not in FORM_NAMES:
        raise ValueError(f"expected one of {', '.join(FORM_NAMES)}")
    return value


def _parse_hemisphere(value: Any) -> Any:
    if value is not None and value not in HEMISPHERES:
        raise ValueError(f"expected {' or '.join(HEMISPHERES)}")
    return value


def is_cluster(scheduler: Any) -> bool:
    """Whether *scheduler* means a Dask cluster, rather than this process."""
    return not isinstance(scheduler, str) or "://" in scheduler or scheduler.endswith(".json")


def _parse_scheduler(value: Any) -> Any:
    is_word = isinstance(value, str) and (value in ("threads", "synchronous") or is_cluster(value))
    if is_word or (hasattr(value, "submit") and hasattr(value, "scheduler_info")):
        return value
    raise ValueError(
        "expected threads, synchronous, the address of a Dask scheduler such as tcp://host:8786, a scheduler file "
        "(FILE.json), or a distributed.Client"
    )


def _parse_paths(value: Any) -> Any:
    """Paths from one path, several, or None."""
    if value is None:
        return ()
    words = [value] if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, (str, os.PathLike)) for word in words):
        raise ValueError("expected a path or a list of paths")
    return tuple(Path(word) for word in words)


def _parse_names(value: Any) -> Any:
    """Names from one name, several, or None."""
    words = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
        raise ValueError("expected a name or a list of names")
    return tuple(words)


class Config(BaseModel):
    """Options of plan and convert; each is explained in the command line's help."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sessions: Annotated[tuple[int, ...] | None, BeforeValidator(parse_sessions)] = None
    """Session numbers to convert, ascending; None: all that are there."""
    subject: int | None = Field(None, ge=1, le=MAX_SUBJECT)
    """Subject below an NSD root, from 1."""
    subjects: Annotated[tuple[int, ...] | None, BeforeValidator(_parse_subjects)] = None
    """Subjects of a store with a group for each, ascending; None: one subject, whose store it is."""
    space: str | None = None
    """Space below an NSD root, such as func1pt8mm."""
    betas: str | None = None
    """Betas version below an NSD root, such as betas_fithrf_GLMdenoise_RR."""
    form: Annotated[str | None, BeforeValidator(_parse_form)] = None
    """Form of session files that is read, of forms.FORM_NAMES; None: the first that is there."""
    hemisphere: Annotated[str | None, BeforeValidator(_parse_hemisphere)] = None
    """lh or rh: that one of a surface alone; None: both."""
    no_experiment: bool = False
    """Attach no trial table, masks and regions, wherever they lie."""
    trial_table: Path | None = None
    """responses.tsv; None here and below: at the dataset's own place, if the betas lie at theirs."""
    expdesign: Path | None = None
    """nsd_expdesign.mat."""
    stim_info: Path | None = None
    """nsd_stim_info_merged.csv."""
    brainmask: Path | None = None
    """brainmask.nii.gz."""
    ncsnr: Path | None = None
    """ncsnr.nii.gz."""
    valid: str | None = Field(None, min_length=1)
    """Folder or glob of valid_sessionBB.nii.gz."""
    roi: Annotated[tuple[Path, ...], BeforeValidator(_parse_paths)] = ()
    """Region volumes, beside those that are found; one of the same name wins over them."""
    skip_roi: Annotated[tuple[str, ...], BeforeValidator(_parse_names)] = ()
    """Names of sets of regions to leave out."""
    no_trial_table: bool = False
    """Attach masks and regions, but no trial table."""
    dataset: str = Field(BETAS_DATASET, min_length=1)
    """Name of the dataset in each session file."""
    trials_per_shard: int | None = Field(None, ge=1)
    """Trials in a shard; must divide the trials of a session. None: see layout.choose_trials_per_shard."""
    codec: Annotated[str, BeforeValidator(_parse_codec)] = "lz4"
    """Compressor inside Blosc, one of CODECS."""
    clevel: int | None = Field(None, ge=0, le=9)
    """Compression level; None: see DEFAULT_CLEVELS."""
    workers: int | None = Field(None, ge=1, le=1024)
    """Threads of this process; None: one for each core that it may use."""
    memory: ByteSize | None = Field(None, gt=0)
    """Bytes for the whole run, on a cluster for each worker; None: half of what is free, on a cluster by its limits."""
    scheduler: Annotated[Any, BeforeValidator(_parse_scheduler)] = "threads"
    """threads (Dask's, in this process), synchronous (for debugging), the address of a Dask scheduler, a scheduler file
    (FILE.json), or a distributed.Client."""
    fresh: bool = False
    """Forget an unfinished run of this store and start again."""
    replace_session: Annotated[tuple[int, ...] | None, BeforeValidator(parse_sessions)] = None
    """Sessions of a finished store whose files were delivered again; None: none."""
    part: Annotated[Part | None, BeforeValidator(_parse_part)] = None
    """Convert this part of the sessions alone, such as 3/8, and leave the store unfinished; None: all, to the end."""
    profile: str | None = None
    """Of URLs: the profile of ~/.aws with which they are reached."""
    anonymous: bool = False
    """Of URLs: without credentials, as a public bucket is reached."""
    endpoint_url: str | None = None
    """Of URLs: the server, where it is not the provider's own."""
    region: str | None = None
    """Of URLs: the region of the bucket."""
    storage_options: dict[str, Any] | None = Field(None, repr=False)
    """Of URLs: how they are reached, as pandas and xarray take it; of one URL under its name. Wins over those above."""
    scratch: Path | None = None
    """Folder for session files that are fetched from a URL; None: memory where they fit, else the system's own."""

    @property
    def access(self) -> dict[str, Any]:
        """How URLs are reached, as storage_options."""
        words = {
            "profile": self.profile,
            "anon": self.anonymous or None,
            "endpoint_url": self.endpoint_url,
            "region": self.region,
        }
        return {name: value for name, value in words.items() if value is not None} | (self.storage_options or {})

    @property
    def effective_clevel(self) -> int:
        """The compression level in force."""
        return DEFAULT_CLEVELS[self.codec] if self.clevel is None else self.clevel

    @property
    def effective_workers(self) -> int:
        """The number of threads in force."""
        return self.workers or count_cores()

    @property
    def effective_memory(self) -> int:
        """Bytes for the whole run in force."""
        return choose_memory_limit(self.memory)


def make_config(file: str | os.PathLike[str] | None = None, **options: Any) -> Config:
    """A Config from a YAML file and options; options that are not None win over the file. Raises ConfigError."""
    values = read_config_file(Path(file)) if file is not None else {}
    check_keys(values, Path(file) if file is not None else None)
    check_keys(options, None)
    values |= {name: value for name, value in options.items() if value is not None}
    try:
        return Config(**values)
    except ValidationError as error:
        raise ConfigError(
            _explain(error), hint="See nsd-zarr convert --help.", path=None if file is None else Path(file)
        ) from error


MAX_CONFIG_BYTES = 2**20
"""A larger configuration is refused unread."""


class _PlainLoader(yaml.SafeLoader):
    """Plain data only: no tags, and no aliases, of which nine lines can make a text of a gigabyte."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not taken, write the value out")
        return super().compose_node(parent, index)


def read_config_file(path: Path) -> dict[str, Any]:
    """Keys and values of a flat YAML file. Plain data only: tags and aliases are refused. Raises ConfigError."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
        if len(text) > MAX_CONFIG_BYTES:
            raise ConfigError(f"more than {MAX_CONFIG_BYTES} characters are no configuration", path=path)
        values = yaml.load(text, _PlainLoader)
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read the configuration: {error.strerror}", path=path) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {_shorten(' '.join(str(error).split()))}", path=path) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"found a {type(values).__name__}, expected keys and values, one a line", hint="codec: zstd", path=path
        )
    return {str(key): value for key, value in values.items()}


def check_keys(values: dict[str, Any], path: Path | None) -> None:
    """Refuse an unknown key, naming the nearest known one. Raises ConfigError."""
    for key in values:
        if key not in Config.model_fields:
            hint = suggest(key, Config.model_fields)
            raise ConfigError(f"unknown key {_format_value(key)}", hint=hint, path=path, found=key)


def _explain(error: ValidationError) -> str:
    problems = []
    for detail in error.errors():
        key = str(detail["loc"][0]) if detail["loc"] else "options"
        message = detail["msg"].removeprefix("Value error, ")
        problems.append(f"{key} = {_format_value(detail['input'])}: {_shorten(message[:1].lower() + message[1:])}")
    return "; ".join(problems)


def _format_value(value: Any) -> str:
    return _shorten(repr(value))


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
