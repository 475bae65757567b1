"""Where things are: hosts, URLs, paths on hosts and on the responder's machine.

As in ``words``: each check gives "" for a good value, else what is wrong with it, as it reads after the value.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote, urlsplit

from runbook.planfile.charset import MEMBER, USER, strange
from runbook.snapshots.urls import is_reference, parse_reference


def host(text: str) -> str:
    """A host name or an IP address, as an argument of ssh."""
    if not text:
        return "is empty"
    if text.startswith("-"):
        return "begins with -, as an option of a command does"
    if "@" in text:
        return "names a user; that goes to ssh.user"
    if ":" in text or text.startswith("["):
        return _ipv6(text)
    if odd := strange(text, r"A-Za-z0-9._\-"):
        return odd
    if len(text) > 253 or any(not label or len(label) > 63 or label.startswith("-") for label in text.split(".")):
        return "is not a host name"
    return _ipv4(text) if re.search(r"(^|\.)[0-9]+$", text) else ""


def _ipv4(text: str) -> str:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return "ends in a number and yet is no IPv4 address"
    return ""


def _ipv6(text: str) -> str:
    if re.fullmatch(r"[^:]*:[0-9]+", text):
        return "names a port; that goes to ssh.port"
    if text.startswith("["):
        return "stands in brackets; they are for URLs only"
    if "%" in text:
        return "has a zone; give such a host a name in ~/.ssh/config"
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return "is no IPv6 address"
    return ""


def host_path(text: str) -> str:
    """An absolute path on a host, in its shortest form."""
    if not text:
        return "is empty"
    if not text.startswith("/"):
        return "is not absolute"
    if odd := strange(text, r"A-Za-z0-9/._+@:=,%\-"):
        return odd
    if text == "/":
        return "is the root directory"
    if len(text) > 1024 or any(len(part) > 200 for part in text.split("/")):
        return "is too long"
    return _components(text) or ("ends with /; leave that out" if text.endswith("/") else "")


def _components(text: str) -> str:
    parts = text.rstrip("/").split("/")[1:] if text.startswith("/") else text.rstrip("/").split("/")
    if ".." in parts:
        return "goes up with .."
    if "" in parts:
        return "holds //"
    return "goes through ." if "." in (parts if text.startswith("/") else parts[1:]) else ""


def local_path(text: str) -> str:
    """A path on the responder's machine: absolute, below ``~/``, or relative to the plan file."""
    if not text:
        return "is empty"
    if not text.isprintable():
        return "holds a control character"
    if text.startswith("-"):
        return "begins with -, as an option of a command does; write ./ before it"
    if text.startswith("~") and not text.startswith("~/"):
        return "begins with ~ and no /"
    if "://" in text:
        return "is a URL"
    return "is too long" if len(text) > 1024 else _components(text)


def etcd_url(text: str) -> str:
    """A peer or client URL as etcd takes it: scheme, host, port, and nothing else."""
    if odd := strange(text, r"A-Za-z0-9._:/@?#%\[\]\-"):
        return odd
    if not (matched := re.fullmatch(r"(https?)://([^/?#]*)([/?#].*)?", text)):
        return "is not http:// or https://"
    authority, rest = matched[2], matched[3] or ""
    if "@" in authority:
        return "names a user"
    if rest:
        return (
            "ends with /, which etcd refuses; leave that out" if rest == "/" else f"goes on after the port with {rest}"
        )
    if not (place := re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*):([0-9]{1,5})", authority)):
        return "has no host and port"
    if place[2].startswith("0") or not 1 <= int(place[2]) <= 65535:
        return f"has the port {place[2]}"
    return _url_host(place[1])


def _url_host(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") else text
    if text.startswith("[") != (":" in bare):
        return "has a host in brackets that is no IPv6 address"
    if fault := host(bare):
        return f"has a host that {fault}"
    address = url_address(bare)
    if address is not None and (address.is_unspecified or address.is_multicast):
        return "has an address that no other member can reach"
    return ""


def url_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, None where the host is a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def snapshot_url(text: str) -> str:
    """Where the snapshot is: a file here, or one on a node's disk, or in a store."""
    if not text.isprintable():
        return "holds a control character"
    if is_reference(text):
        try:
            return store_url(parse_reference(text).place_url)
        except ValueError as error:
            return str(error)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme is None:
        fault = "has one / only; write file:///path" if text.startswith("file:") else local_path(text)
        path = text
    elif scheme[1] == "file":
        path = unquote(text.removeprefix("file://"))
        fault = _file_url(text, path)
    elif scheme[1] == "host":
        node, slash, rest = text.removeprefix("host://").partition("/")
        path = slash + rest
        fault = "names no node" if MEMBER(node) else (f"has a path that {f}" if (f := host_path(path)) else "")
    elif scheme[1] in ("gcs", "azblob", "abfs", "abfss", "http", "https", "sftp", "ssh", "nfs"):
        known = (
            "write gs://" if scheme[1] == "gcs" else "write az://" if scheme[1][0] == "a" else "fetch the file first"
        )
        return f"is in a store ({scheme[1]}://) that runbook does not read; {known}"
    else:
        return f"has the unknown scheme {scheme[1]}://"
    if not fault and path.endswith("/"):
        return "is a directory"
    if not fault and path.lower().endswith(".part"):
        return "is an unfinished download (.part); take one that is complete"
    return fault


def store_url(text: str) -> str:
    """Where snapshots are kept: a directory, here or on a node, or a place in a bucket."""
    if not text.isprintable():
        return "holds a control character"
    scheme, found, rest = text.partition("://")
    if not found:
        return "has no scheme" + (f"; write file://{text}" if text.startswith("/") else "")
    if "?" in rest or "#" in rest:
        return "holds ? or #: that is for spec.snapshot.from of a restore plan" if "?" in rest else "holds #"
    if scheme == "file":
        return _file_url(text, unquote(rest))
    first, slash, path = rest.partition("/")
    if scheme == "host":
        fault = host_path((slash + path).rstrip("/"))
        return "names no node" if MEMBER(first) else (f"has a path that {fault}" if fault else "")
    if scheme not in ("s3", "gs", "az"):
        return f"has the unknown scheme {scheme}://"
    if "@" in first or ":" in first:
        return "holds a login or a port; credentials come from the environment, and another server from store.endpoint"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._\-]{1,221}", first):
        return "names no bucket" if not first else f"has {first}, which no bucket is called"
    odd = strange(path, r"A-Za-z0-9/._=+@\-") if path else ""
    return f"has a prefix that {odd}" if odd else (_components(path) if path.rstrip("/") else "")


def endpoint_url(text: str) -> str:
    """Where an object store answers: scheme, host, perhaps a port, and a path that Azurite needs."""
    if not (matched := re.fullmatch(r"https?://([^/?#]+)(/[A-Za-z0-9/._\-]*)?", text)):
        return "is not http:// or https:// and a host"
    if "@" in matched[1]:
        return "names a user; credentials come from the environment"
    place = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(:([0-9]{1,5}))?", matched[1])
    return _url_host(place[1]) if place and not int(place[3] or 1) > 65535 else "has no host and port"


def _file_url(text: str, path: str) -> str:
    if not path.startswith("/"):
        return "has a host, or a relative path; write file:///path with three /"
    if "?" in text or "#" in text:
        return "holds ? or #; write %3F or %23"
    if not path.isprintable():
        return "holds a control character"
    return f"has a path that {fault}" if (fault := local_path(path)) else ""


def jump(text: str) -> str:
    """``[user@]host[:port]``, or "" for none."""
    if not text:
        return ""
    if "," in text:
        return "names more than one jump host; give the chain to ~/.ssh/config"
    login, at, place = text.rpartition("@")
    if at and (fault := USER(login)):
        return f"has a user that {fault}"
    parts = re.fullmatch(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?", place)
    if parts is None:
        return host(place)  # a bare IPv6 address, or nothing good
    if parts["six"] is not None and url_address(parts["six"]) is None:
        return "has brackets around what is no IPv6 address"
    if parts["port"] and not 1 <= int(parts["port"]) <= 65535:
        return f"has the port {parts['port']}"
    return host(parts["six"] or parts["name"] or "")


def endpoint(url: str) -> tuple[str, int]:
    """Host and port of a good URL, in the form in which two can be compared."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    return str(url_address(name) or name.lower()), parts.port or 0


def host_key(name: str) -> str:
    """A good host in the form in which two can be compared."""
    return str(url_address(name) or name.lower())
