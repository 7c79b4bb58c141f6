"""Where brokers and cameras are, as the settings say it."""

import re
from pathlib import Path
from typing import Any

SECRET_WORDS = "pas+(?:word|wd)?|pwd|token|secret|key"


def without_secret(address: object) -> str:
    """A camera's source or a broker's address as it may be shown.

    Without what stands before the @ of a URL or behind its ? or #, and without the values of words like `password=`.
    """
    shown = re.sub("//.*@", "//", str(address), flags=re.DOTALL)
    shown = re.sub("(://[^?#]*[?#]).*", r"\1...", shown, flags=re.DOTALL)
    shown = re.sub(f"(?i)({SECRET_WORDS})=[^&;/]*", r"\1=...", shown)
    return re.sub("^[^/@]*:(?!//).*@", "", shown, flags=re.DOTALL)  # user:password@host


def camera_number(source: object) -> int | None:
    """N of `picamera2:N`, a Raspberry Pi's camera module, and 0 of `picamera2`; None for any other source.

    Raises ValueError for one that is spelt wrong.
    """
    name, colon, number = str(source).partition(":")
    if name != "picamera2":
        return None
    if not colon:
        return 0
    if not (number.isascii() and number.isdigit() and len(number) < 4):
        raise ValueError("must be picamera2 or, of several camera modules, picamera2:0, picamera2:1 and so on")
    return int(number)


def check_host(text: str) -> str:
    """Of one broker: a host alone, an IPv6 address also in brackets, which are taken off. Raises ValueError."""
    host = text.removeprefix("[").removesuffix("]")
    if not _may_be_host(host) or host.count(":") == 1:
        raise ValueError("must be 'embedded', or a host's name or address alone; its port goes to mqtt.port")
    return host


def check_brokers(value: Any) -> Any:
    """Of several: a tuple of what `split_address` takes; else as it is. Raises ValueError."""
    if not isinstance(value, list):
        return value
    if not value or not all(isinstance(each, str) for each in value) or len(set(value)) < len(value):
        raise ValueError("must be a list of different brokers, each a host's name, an address or host:port")
    for each in value:
        host, port = split_address(each)
        if not _may_be_host(host) or host == "embedded" or not (port is None or 1 <= port <= 65535):
            raise ValueError(f"{without_secret(each)!r}: must be a host's name, an address or host:port")
    return tuple(value)


def _may_be_host(text: str) -> bool:
    return bool(text) and text.isprintable() and not set(" /@") & set(text)


def split_address(text: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `[address]:port` or a bare IPv6 address; a port of 0 is one that is not a number."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        return text.strip("[]"), None
    return host.strip("[]"), int(port) if port.isascii() and port.isdigit() else 0


def ffmpeg_name(path: Path) -> str:
    """A file's name as FFmpeg understands it: what stands before a colon in a relative one is a protocol to it."""
    return str(path.absolute())


def why_no_host(error: OSError | UnicodeError) -> str:
    """What is wrong with a host's name or address; a UnicodeError is of a name that cannot even be asked for."""
    return getattr(error, "strerror", None) or "no host can have this name"
