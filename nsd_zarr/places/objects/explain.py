"""What servers of objects refuse, as errors whose text says what to do. Of their own text a code or a line is kept."""

from __future__ import annotations

import errno
import re

_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_QUERY = re.compile(r"\?\S*")
"""Queries of URLs, which may hold signatures."""

_XML = re.compile(r":?\s*<.*$")
"""The beginning of a document, behind the line."""
MAX_TEXT = 300

_CREDENTIALS = (
    "give --profile NAME, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (Azure: AZURE_STORAGE_ACCOUNT_NAME and "
    "AZURE_STORAGE_ACCOUNT_KEY, Google: GOOGLE_APPLICATION_CREDENTIALS), or storage_options"
)
_ADVICE = {
    "ExpiredToken": f"the credentials have expired: log in again, or {_CREDENTIALS}",
    "RequestExpired": "the clock of this machine is wrong, or the credentials have expired",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: set it",
    "InvalidAccessKeyId": f"the server does not know the access key: {_CREDENTIALS}",
    "InvalidToken": f"the session token is not the one of the access key: {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key is not the one of the access key: {_CREDENTIALS}",
    "NoSuchBucket": "no such bucket: check its name, and the endpoint",
    "PermanentRedirect": "the bucket lies in another region: give it with --region or AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket lies in another region: give it with --region or AWS_REGION",
    "SlowDown": "the server asks for fewer requests: try again later",
}
NO_CREDENTIALS = f"there are no credentials: {_CREDENTIALS}; for a public bucket --anonymous, or anon: True"


class ObjectReplaced(OSError):
    """Another object has taken the place of the one that was opened."""


class CutShort(ValueError):
    """The object ends before the range that was asked for."""


class NoBucket(OSError):
    """There is no such bucket."""


def explain_object_error(error: BaseException) -> OSError | ValueError:
    """*error* of obstore with a text for people: an OSError such as FileNotFoundError or PermissionError, or CutShort.

    Those that may pass have an error number by which a read is tried again (retry.py).
    """
    text, name = str(error), type(error).__name__
    code, status = _find(_CODE, text), _find(_STATUS, text)
    if "169.254.169.254" in text or "missing credential" in text.lower():
        return PermissionError(NO_CREDENTIALS)
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return NoBucket(_ADVICE["NoSuchBucket"])
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is no such object")
    if "redirect without LOCATION" in text or status == "301":
        return OSError(_ADVICE["PermanentRedirect"])
    if code in _ADVICE and code != "SlowDown":
        return PermissionError(_ADVICE[code])
    if name == "PreconditionError":
        return ObjectReplaced("another object has taken its place since it was opened: open the store again")
    if status == "416":
        return CutShort("it is shorter than it was when it was written")
    if name in ("PermissionDeniedError", "UnauthenticatedError") or status in ("401", "403"):
        return PermissionError(
            f"access is denied ({code or status or name}): these credentials may not; {_CREDENTIALS}"
        )
    return OSError(errno.EREMOTEIO, _ADVICE.get(code) or f"the server does not answer as it should: {shorten(text)}")


def shorten(text: str) -> str:
    """The first line of a client's text, without queries and times."""
    line = _XML.sub("", _QUERY.sub("", text.strip().split("\n", 1)[0]))
    return line if len(line) <= MAX_TEXT else f"{line[:MAX_TEXT]}..."


def _find(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""
