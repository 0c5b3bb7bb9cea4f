"""The obstore client of a bucket, one a process: by what was given, the environment, and profiles of ~/.aws."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from nsd_zarr.errors import ConfigError
from nsd_zarr.places.objects.access import Access, read_connection_string, read_profile
from nsd_zarr.places.objects.explain import NO_CREDENTIALS

SCHEMES = {
    "s3": "S3Store",
    "s3a": "S3Store",
    "gs": "GCSStore",
    "az": "AzureStore",
    "azure": "AzureStore",
    "abfs": "AzureStore",
    "abfss": "AzureStore",
    "http": "HTTPStore",
    "https": "HTTPStore",
}
"""Kinds of URL, and obstore's class for each."""
TIME_LIMITS = {"timeout": "300s", "read_timeout": "30s", "connect_timeout": "5s"}
"""obstore's own is 30 s for a whole request with its body: a shard of 75 MB would need 2.5 MB/s."""
MAX_RETRIES = 6
"""Times that one request is tried again: 6 s in all where nobody answers, with pauses that double from 0.1 s."""
_METADATA_HOST = ("169.254.169.254", 80)
"""Where a machine of EC2 asks for the credentials of its role."""
_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)

_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_SKIP_SIGNATURE",
    "AZURE_STORAGE_CONNECTION_STRING",
)
"""Variables that make another client where somebody sets them meanwhile, in a notebook."""
_clients: dict[tuple[Any, ...], Any] = {}
_process = 0
"""The process that made them; 0 before the first."""


def is_url(text: str) -> bool:
    """Whether *text* is a URL of objects that this package reads by itself."""
    return "://" in text and text.partition("://")[0].lower() in SCHEMES


def find_root(url: str) -> tuple[str, str]:
    """The bucket of *url*, as a URL, and the path in it."""
    parts = urlsplit(url)
    return f"{parts.scheme.lower()}://{parts.netloc}", parts.path.strip("/")


def connect(root: str, access: Access) -> Any:
    """The client of the bucket *root*. Raises ConfigError, and OSError in a process that was forked off one with one.

    obstore runs threads of its own, which a fork does not copy: a request there would wait for ever.
    """
    global _process
    if _process not in (0, os.getpid()):
        raise OSError(
            "stores behind URLs cannot be read in a process that was forked off one that reads them: start worker "
            'processes by spawn or forkserver (DataLoader(..., multiprocessing_context="forkserver")), or use '
            "TrialLoader, which needs none"
        )
    key = (root, access.options, *map(os.environ.get, _ENVIRONMENT))
    if key not in _clients:
        client, _process = _make_client(root, access), os.getpid()
        _clients[key] = client
    return _clients[key]


def has_obstore() -> bool:
    """Whether obstore is installed."""
    from importlib.util import find_spec

    return find_spec("obstore") is not None


def find_biller(url: str, access: Access) -> str:
    """Who sends a bill for requests to *url*: "nobody" (there is no account), "s3", or "somebody" with other prices."""
    kind, environ = SCHEMES[url.partition("://")[0].lower()], os.environ
    if kind == "HTTPStore" or (kind == "S3Store" and _is_anonymous(access.find("skip_signature"), environ)):
        return "nobody"
    endpoint = access.find("endpoint") or environ.get("AWS_ENDPOINT_URL_S3") or _find_endpoint(kind)
    if kind != "S3Store" or endpoint:
        return "somebody"
    try:
        return "somebody" if "endpoint" in read_profile(access.find("profile")) else "s3"
    except ConfigError:  # Where keys were given, profiles that cannot be read are none of its business.
        return "somebody"


def _is_anonymous(skip_signature: Any, environ: Mapping[str, str]) -> bool:
    return str(skip_signature or environ.get("AWS_SKIP_SIGNATURE", "")).lower() in ("1", "true")


def _make_client(root: str, access: Access) -> Any:
    try:
        import obstore.store
    except ImportError as error:
        raise ConfigError(
            "objects behind URLs need obstore", hint='pip install "nsd-zarr[objects]"', path=root
        ) from error
    kind = SCHEMES[root.partition("://")[0]]
    options = dict(access.options)
    limits: dict[str, Any] = {name: options.pop(name, value) for name, value in TIME_LIMITS.items()}
    config, provider = _configure(kind, options, root)
    endpoint = str(config.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL_S3") or _find_endpoint(kind))
    if root.startswith("http://") or endpoint.startswith("http://") or config.pop("allow_http", False):
        limits["allow_http"] = True
    if config.pop("verify", True) is False:
        limits["allow_invalid_certificates"] = True
    backoff = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=4), "base": 2}
    retries = {"max_retries": MAX_RETRIES, "backoff": backoff, "retry_timeout": timedelta(seconds=120)}
    keywords: dict[str, Any] = {"client_options": limits, "retry_config": retries}
    if kind != "HTTPStore":
        keywords |= {"config": {name: _spell(value) for name, value in config.items()}}
    if provider is not None:
        keywords |= {"credential_provider": provider}
    try:
        return getattr(obstore.store, kind).from_url(root, **keywords)
    except Exception as error:  # obstore's errors for options have no class in common; their text may quote a value.
        raise ConfigError(
            f"these options do not reach {root}: {', '.join(sorted(config)) or 'none was given'} "
            f"({type(error).__name__})",
            hint="Give options as pandas and xarray take them, such as key, secret, endpoint_url, region, anon; of "
            "Azure account_name and account_key, or connection_string.",
        ) from None


def _configure(kind: str, options: dict[str, Any], root: str) -> tuple[dict[str, Any], Any]:
    """Obstore's configuration of a bucket of any kind, and a provider of credentials where there is one."""
    if kind == "S3Store":
        return _configure_s3(options, root)
    return (_configure_azure(options) if kind == "AzureStore" else options), None


def _configure_azure(options: dict[str, Any]) -> dict[str, Any]:
    """Obstore's configuration of a container: what was given by itself wins over a connection string."""
    text = options.pop("connection_string", None)
    if not text and not options.keys() & {"account_name", "skip_signature"}:
        text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    return (read_connection_string(text) if text else {}) | options


def _find_endpoint(kind: str) -> str:
    return os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", "")) if kind == "S3Store" else ""


def _spell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _configure_s3(options: dict[str, Any], root: str) -> tuple[dict[str, Any], Any]:
    """Obstore's configuration of a bucket, and a provider of credentials where boto3 has to find them."""
    config, environ = dict(options), os.environ
    name, provider = config.pop("profile", None), config.pop("credential_provider", None)
    config.setdefault("checksum_algorithm", "SHA256")
    is_anonymous = _is_anonymous(config.get("skip_signature"), environ)
    has_keys = "access_key_id" in config or (name is None and "AWS_ACCESS_KEY_ID" in environ)
    profile = read_profile(name) if name or not (is_anonymous or has_keys) else {}
    config = _without_set(profile, environ, name) | config
    if is_anonymous or has_keys or "access_key_id" in config or provider is not None:
        return config, provider
    if any(role in environ for role in _ROLES):
        return config, None
    return config, _ask_boto3(name or environ.get("AWS_PROFILE"), root)


def _without_set(profile: Mapping[str, str], environ: Mapping[str, str], name: str | None) -> dict[str, str]:
    """What of a profile counts: the environment wins over it, unless it was named outright."""
    return {key: value for key, value in profile.items() if name or f"AWS_{key.upper()}" not in environ}


def _ask_boto3(name: str | None, root: str) -> Any:
    """Credentials of a profile that has no keys of its own (single sign-on, a role): boto3's, where it is installed.

    None: those of the machine's role. Raises ConfigError, PermissionError.
    """
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider

        session = boto3.Session(profile_name=name)
        if session.get_credentials() is not None:
            return Boto3CredentialProvider(session)
    except ImportError:
        if name:
            raise ConfigError(
                f"profile {name!r} has no keys of its own, as of single sign-on or a role", hint="pip install boto3"
            ) from None
    except Exception as error:  # boto3 has errors of many kinds; their text may say more than one wants to see.
        raise ConfigError(f"boto3 finds no credentials for {root}: {type(error).__name__}") from None
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true" or not _is_on_ec2():
        raise PermissionError(NO_CREDENTIALS)
    return None


def _is_on_ec2() -> bool:
    try:
        with socket.create_connection(_METADATA_HOST, timeout=1):
            return True
    except OSError:
        return False
