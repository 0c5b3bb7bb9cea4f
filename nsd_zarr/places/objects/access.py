"""How objects behind URLs are reached: `storage_options` as pandas and xarray take them, else the environment.

Nothing of this is printed: an Access shows no value, and errors name options alone.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nsd_zarr.errors import ConfigError

_WORDS = {
    "anon": "skip_signature",
    "anonymous": "skip_signature",
    "key": "access_key_id",
    "username": "access_key_id",
    "secret": "secret_access_key",
    "password": "secret_access_key",
    "token": "session_token",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "verify": "verify",
}
"""Words of fsspec and boto3 for what obstore calls otherwise."""
_NO_OPTIONS = ("asynchronous", "use_ssl", "default_block_size", "default_cache_type", "default_fill_cache")
"""Options of fsspec that say nothing of how objects are reached."""


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """Where whole shards are kept, and how much of them."""

    folder: str
    """A local folder."""
    limit_bytes: int
    """Bytes of all shards in it."""


@dataclass(frozen=True, slots=True)
class Access:
    """How objects are reached. Hashable and picklable; its text shows no value, which may be secret."""

    options: tuple[tuple[str, Any], ...] = field(default=(), repr=False)
    """What was given, by obstore's names, sorted."""
    cache: CacheChoice | None = None
    """Where objects are kept on this machine; None: nowhere."""
    scratch: str | None = None
    """Folder for sources that are fetched whole, "" for the system's own; None: memory."""

    def find(self, name: str) -> Any:
        """The value that was given for *name*; None where none was."""
        return dict(self.options).get(name)

    def with_scratch(self, folder: str | None) -> Access:
        """The same, with sources fetched into *folder*."""
        return replace(self, scratch=folder)

    def with_cache(self, cache: CacheChoice | None) -> Access:
        """The same, with objects kept as *cache* says."""
        return replace(self, cache=cache)


def make_access(url: str, storage_options: Mapping[str, Any] | None) -> Access:
    """How *url* is reached. Keys of *storage_options* that are URLs hold the options of what lies below them.

    Raises ConfigError, which names options without their values.
    """
    chosen: dict[str, Any] = {}
    for name, value in sorted((storage_options or {}).items(), key=lambda item: ("://" in item[0], len(item[0]))):
        if "://" not in name:
            chosen |= dict(_rename(name, value))
        elif f"{url}/".startswith(f"{name.rstrip('/')}/") and isinstance(value, Mapping):
            chosen |= dict(pair for each in value.items() for pair in _rename(*each))
    return Access(tuple(sorted((name, value) for name, value in chosen.items() if value is not None)))


def _rename(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Option *name* by obstore's name; options inside client_kwargs and config by themselves."""
    plain = name.lower().removeprefix("aws_")
    if name in ("client_kwargs", "config", "config_kwargs") and isinstance(value, Mapping):
        for each in value.items():
            yield from _rename(*each)
    elif name in _NO_OPTIONS:
        return
    elif not isinstance(value, (str, int, float, bool, os.PathLike, type(None))) and not callable(value):
        raise ConfigError(
            f"storage_options: {name} is a {type(value).__name__}, expected text, a number or true or false",
            hint="Give options as pandas and xarray take them, such as key, secret, endpoint_url, anon.",
        )
    else:
        yield _WORDS.get(plain, plain), os.fspath(value) if isinstance(value, os.PathLike) else value


_CONNECTION_WORDS = {
    "accountname": "account_name",
    "accountkey": "account_key",
    "sharedaccesssignature": "sas_token",
    "blobendpoint": "endpoint",
}


def read_connection_string(text: str) -> dict[str, str]:
    """Account, key or signature, and endpoint of a connection string of Azure, `AccountName=...;AccountKey=...;...`.

    Raises ConfigError where it names no account.
    """
    parts = (part.partition("=") for part in text.split(";"))  # A key ends in = itself.
    found = {name.strip().lower(): value.strip() for name, _, value in parts if value.strip()}
    options = {word: found[name] for name, word in _CONNECTION_WORDS.items() if name in found}
    if not {"account_name", "endpoint"} & options.keys():
        raise ConfigError(
            "the connection string names no account, expected AccountName=NAME;AccountKey=KEY",
            hint="Copy it again from the account's access keys.",
        )
    if "endpoint" not in options and (suffix := found.get("endpointsuffix")):
        scheme = found.get("defaultendpointsprotocol", "https")
        options["endpoint"] = f"{scheme}://{options['account_name']}.blob.{suffix}"
    return options


# -- profiles of the AWS command line ----------------------------------------------------------------------------

_PROFILE_WORDS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}


def read_profile(name: str | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Keys, region and endpoint of a profile in ~/.aws; *name* None: of AWS_PROFILE or the default one, if any.

    Raises ConfigError where a profile that was named is in none of the files.
    """
    asked = name or environ.get("AWS_PROFILE")
    wanted, is_there = asked or "default", False
    found: dict[str, str] = {}
    for path, section in (
        (environ.get("AWS_CONFIG_FILE", "~/.aws/config"), wanted if wanted == "default" else f"profile {wanted}"),
        (environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), wanted),
    ):
        values = _read_section(Path(path).expanduser(), section)
        is_there |= values is not None
        found |= {_PROFILE_WORDS[key]: value for key, value in (values or {}).items() if key in _PROFILE_WORDS}
    if asked and not is_there:
        raise ConfigError(
            f"no profile {asked!r} in ~/.aws/config and ~/.aws/credentials",
            hint="Check the name given by --profile or AWS_PROFILE.",
            found=asked,
        )
    return found


def _read_section(path: Path, section: str) -> dict[str, str] | None:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, OSError, ValueError) as error:
        raise ConfigError(
            f"the file of profiles cannot be read: {type(error).__name__}", hint="See to it.", path=path
        ) from None  # Its text would quote the line.
    return dict(parser.items(section)) if parser.has_section(section) else None
