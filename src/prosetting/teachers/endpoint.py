"""Where a teacher is reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from prosetting.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint and the model asked for there.

    `identity` is what recorded replies are kept under, where the address changes from run to run; by default
    the address. Raises ConfigError for an address or a key that cannot be sent; the key is never shown.
    """

    base_url: str
    api_key: str = field(repr=False)
    model: str
    identity: str = ""

    def __post_init__(self) -> None:
        parts = _split(self.base_url)
        if parts is not None and (parts.username is not None or parts.password is not None):
            raise ConfigError(
                "the teacher's address holds a user or a password",
                next_step="write http://host:port/v1 and put the key into TEACHER_API_KEY",
            )
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"{self.base_url!r} is no address of a teacher",
                next_step="set TEACHER_BASE_URL to something like http://host:8000/v1",
            )
        if not all("!" <= character <= "~" for character in self.api_key):
            raise ConfigError(
                "the teacher's key holds spaces, line ends or non-ASCII characters",
                next_step="copy it again into TEACHER_API_KEY, without quotes",
            )

    @property
    def is_loopback(self) -> bool:
        return urlsplit(self.base_url).hostname in ("127.0.0.1", "::1", "localhost")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
