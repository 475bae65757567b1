"""From a place in a plan to a bucket that can be asked: which provider, which options, and whose credentials.

Credentials come from where the provider's own tools take them (environment, files of its tools, the machine's role),
never from a plan. Nothing is connected here.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook.backup import Place
from runbook.planfile.charset import masked
from runbook.snapshots.stores import StoreTrouble

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PROVIDERS = {"s3": "S3", "gs": "Google Cloud Storage", "az": "Azure Blob Storage"}
CONNECT = timedelta(seconds=5)
"""For a connection to be made."""
_NO_LIMIT = timedelta(days=1)
"""For a whole answer, which may be a snapshot: what counts is how long nothing comes."""
_PAUSE = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2}


def bucket(place: Place, patience: timedelta, silence: timedelta) -> ObjectStore:
    """The place's bucket, below its prefix. Raises StoreTrouble for what cannot be meant.

    A request that fails is tried again for so long (``patience``), and is one that failed where nothing comes for
    so long (``silence``).
    """
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, S3Store

    scheme, name, prefix = parts(place.url)
    made, options = {"s3": (S3Store, _s3), "gs": (GCSStore, _gs), "az": (AzureStore, _az)}[scheme]
    own = options(place, os.environ)
    client: dict[str, Any] = {"connect_timeout": CONNECT, "read_timeout": silence, "timeout": _NO_LIMIT}
    client["allow_http"] = own.pop("allow_http")
    if ca := os.environ.get("AWS_CA_BUNDLE", "") if scheme == "s3" else "":
        client["root_certificate"] = _certificate(place, ca)
    retries = {"max_retries": 1000, "retry_timeout": patience, "backoff": _PAUSE}
    try:
        return made(name, prefix=prefix or None, client_options=client, retry_config=retries, **own)  # type: ignore[no-any-return]
    except (BaseError, ValueError, OSError) as error:
        said = str(error).splitlines()[0]
        if "InvalidAccessKey" in str(error):  # it tells which letter is wrong, and nothing of a secret belongs here
            said = "the account's key is not what a key looks like (base64)"
        raise StoreTrouble(f"cannot use {place.url}: {said}", f"look at {CREDENTIALS[scheme]}") from None


CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN), or AWS_PROFILE with keys in "
    "~/.aws/credentials, or the machine's role; from SSO or an assumed role: "
    'eval "$(aws configure export-credentials --format env)"',
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT (a file), or the machine's service account",
    "az": "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID, "
    "AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or the machine's identity",
}
"""Where they come from, by scheme."""


def parts(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and prefix, the last without a slash at its ends. Raises StoreTrouble."""
    scheme, separator, rest = url.partition("://")
    name, _, prefix = rest.partition("/")
    if not separator or scheme not in PROVIDERS or not name or set(rest) & set("@?#\\"):
        known = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in PROVIDERS)
        raise StoreTrouble(f"{masked(url)[:80]!r} is no object store", f"it is one of {known}")
    return scheme, name, prefix.strip("/")


def _s3(place: Place, env: Mapping[str, str]) -> dict[str, Any]:
    found = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = place.endpoint or next((env[name] for name in found if env.get(name)), "")
    profile = _profile(place, env)
    region = place.region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or profile.pop("region", "")
    profile.pop("region", None)
    options: dict[str, Any] = {"allow_http": endpoint.startswith("http://"), **profile}
    options["region"] = region or "us-east-1"  # which is what servers of one's own take where none was set
    # One object at a time: not every server knows the request that removes many.
    options["disable_bulk_delete"] = True
    if endpoint:  # under both names: the environment's one for S3 alone would go before the plan's
        options |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
    if place.server_side:
        options["server_side_encryption"] = place.server_side
    if place.kms_key:
        options["sse_kms_key_id"] = place.kms_key
    return options


def _profile(place: Place, env: Mapping[str, str]) -> dict[str, str]:
    """The keys of ``AWS_PROFILE`` in the files of AWS' tools, where the environment has none: obstore does not look."""
    chosen = env.get("AWS_PROFILE", "")
    others = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    if any(env.get(name) for name in (*others, "AWS_CONTAINER_CREDENTIALS_FULL_URI")):
        return {}
    name, found = chosen or "default", dict[str, str]()
    for variable, usual, section in (
        ("AWS_CONFIG_FILE", "~/.aws/config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", name),
    ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(Path(env.get(variable) or usual).expanduser(), encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            # The parser's own message quotes the line that it does not take, and that may be a secret.
            raise StoreTrouble(
                f"cannot use {place.url}: {env.get(variable) or usual} cannot be read as AWS' tools write it",
                "mend it, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ) from None
        if parser.has_section(section):
            found |= dict(parser.items(section))
    keys = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
    keys |= {"aws_session_token": "session_token", "region": "region"}
    taken = {ours: found[theirs] for theirs, ours in keys.items() if found.get(theirs)}
    if chosen and "access_key_id" not in taken:
        raise StoreTrouble(f"cannot use {place.url}: the profile {chosen} has no keys", f"set {CREDENTIALS['s3']}")
    return taken


def _gs(place: Place, env: Mapping[str, str]) -> dict[str, Any]:
    _plain(place)
    endpoint = place.endpoint or env.get("GOOGLE_BASE_URL", "")
    options: dict[str, Any] = {"allow_http": endpoint.startswith("http://")}
    if endpoint:
        options["base_url"] = endpoint.rstrip("/")
    if options["allow_http"]:  # a server for tests: a real token would lie open on the wire
        options["bearer_token"] = "none"  # noqa: S105 - the word, as that server takes any
    return options


def _az(place: Place, env: Mapping[str, str]) -> dict[str, Any]:
    _plain(place)
    endpoint = place.endpoint or env.get("AZURE_STORAGE_ENDPOINT") or env.get("AZURE_ENDPOINT") or ""
    options: dict[str, Any] = {"allow_http": endpoint.startswith("http://")}
    account = env.get("AZURE_STORAGE_ACCOUNT_NAME") or env.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise StoreTrouble(f"cannot use {place.url}: no storage account is named", f"set {CREDENTIALS['az']}")
    options["account_name"] = account
    if key := env.get("AZURE_STORAGE_KEY"):  # as the az command has it; the library knows the others
        options["account_key"] = key
    if endpoint:
        options["endpoint"] = endpoint
    return options


def _plain(place: Place) -> None:
    if place.server_side or place.kms_key:
        raise StoreTrouble(
            f"serverSideEncryption and kmsKey are S3's, and the store is {place.url}",
            "leave them out: this provider encrypts what it stores as the bucket says",
        )


def _certificate(place: Place, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StoreTrouble(
            f"cannot use {place.url}: AWS_CA_BUNDLE names {path}: {error.strerror}", "correct or unset it"
        ) from None
