"""What an object store or the library said went wrong, in one line a responder can use, without a credential in it."""

from __future__ import annotations

import re

from runbook.redaction import redact
from runbook.snapshots.bucket import CREDENTIALS, PROVIDERS
from runbook.snapshots.stores import StoreTrouble

_CODE = re.compile(r"<Code>\s*([A-Za-z0-9.]+)\s*</Code>")
_STATUS = re.compile(r"(?:status code: |\(code: )(\d{3})")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "InvalidBucketName")
_DENIED = ("AccessDenied", "AuthorizationPermissionMismatch", "AccountIsDisabled", "AllAccessDisabled")
_WRONG_KEY = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationFailure", "AuthenticationFailed", "ExpiredToken",
    "InvalidToken", "TokenRefreshRequired", "XAdminUserNotFound", "InvalidAuthenticationInfo",
    "NoAuthenticationInformation",
)  # fmt: skip
_REGION = (
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "TemporaryRedirect",
    "IllegalLocationConstraintException",
)
_NO_CREDENTIALS = ("token request", "credential", "/latest/api/token", "/latest/meta-data", "/metadata/identity")
"""The last ones are where a machine would be asked for its role: asked only where nothing else gave any."""
_NO_OBJECT = ("NoSuchKey", "BlobNotFound")
_UNREACHABLE = (
    "error sending request",
    "timed out",
    "error decoding response body",
    "error reading a body",
    "connection",
)


def is_missing(said: str) -> bool:
    """Whether the object alone is missing, and not its bucket, or whoever asks."""
    code = _CODE.search(said)
    if code:
        return code[1] in _NO_OBJECT
    return not _bucket_missing(said)


def _bucket_missing(said: str) -> bool:
    return any(code in said for code in _NO_BUCKET) or "specified container does not exist" in said


def trouble(url: str, what: str, said: str) -> StoreTrouble:
    """``what`` was to be done with ``url``, and what the library ``said``: its first lines, the answer among them."""
    scheme = url.partition(":")[0]
    provider, credentials = PROVIDERS.get(scheme, scheme), CREDENTIALS.get(scheme, "the credentials")
    said = said.partition("Debug source")[0]
    found, status = _CODE.search(said), _STATUS.search(said)
    code = found[1] if found else ""
    number = status[1] if status else ""
    told = f" ({code or number})" if code or number else ""
    if _bucket_missing(said) or (number == "404" and not code):
        why, do = f"there is no such bucket{told}", "make it, or correct the URL"
    elif any(word in said for word in _NO_CREDENTIALS):
        why, do = "no credentials were found that work", f"set {credentials}"
    elif code in _REGION or "incorrectly configured region" in said:
        why, do = f"the bucket is in another region{told}", "name its region in the store's settings"
    elif code in _WRONG_KEY or number == "401":
        why, do = f"{provider} does not know these credentials{told}", f"look at {credentials}"
    elif code in _DENIED or number == "403" or "necessary privileges" in said:
        why, do = f"access is denied{told}", f"these credentials must be allowed to; they come from {credentials}"
    elif code.startswith("KMS") or "kms" in code.lower():
        why, do = f"the KMS key cannot be used{told}", "look at kmsKey, and at what these credentials may do with it"
    elif number.startswith("5") or code in ("SlowDown", "InternalError", "ServerBusy"):
        why, do = f"the store has trouble of its own{told}", "try again later"
    elif any(word in said for word in _UNREACHABLE):
        why, do = "it does not answer", "is the endpoint right, and is there a way to it (network, proxy, certificate)?"
    else:
        line = redact(" ".join(re.sub(r"https?://\S+", "…", said).split()))[:200]
        why, do = f"{code or line}", "look at it with the provider's own tools"
    return StoreTrouble(f"cannot {what} {url}: {why}", do)
