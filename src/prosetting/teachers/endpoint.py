"""Where a teacher, or a Solver that is served over HTTP, is reached."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from prosetting.errors import ConfigError

SHORTEST_SECRET = 8  # characters; a shorter key is a word such as EMPTY, which servers without keys are given
_ESCAPED = re.compile(rb"\\+(?:u00([2-7][0-9a-fA-F])|/)")


@dataclass(frozen=True, slots=True)
class Role:
    """What messages call an endpoint, and the settings that name its address, key and model."""

    title: str
    address: str
    key: str
    model: str


TEACHER = Role(
    "teacher",
    "TEACHER_BASE_URL (TEACHER2_BASE_URL for Teacher2)",
    "TEACHER_API_KEY (TEACHER2_API_KEY for Teacher2)",
    "TEACHER_MODEL_NAME (TEACHER2_MODEL_NAME for Teacher2)",
)
SOLVER = Role("Solver's server", "SOLVER_BASE_URLS", "SOLVER_API_KEY", "SOLVER_MODEL_NAME")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint and the model asked for there.

    `identity` is what recorded replies are kept under, where the address changes from run to run; by default
    the address. `use_env_proxies`: by way of the proxy that the environment names, if any. Raises ConfigError for
    an address or a key that cannot be sent; the key is never shown.
    """

    base_url: str
    api_key: str = field(repr=False)
    model: str
    identity: str = ""
    role: Role = field(default=TEACHER, repr=False)
    use_env_proxies: bool = field(default=False, compare=False)  # how it is reached, not what it is

    def __post_init__(self) -> None:
        parts = _split(self.base_url)
        if parts is not None and (parts.username is not None or parts.password is not None):
            raise ConfigError(
                f"the {self.role.title} has an address with a user or a password",
                next_step=f"write http://host:port/v1 and put the key into {self.role.key}",
            )
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"{self.base_url!r} is no address of a {self.role.title}",
                next_step=f"set {self.role.address} to something like http://host:8000/v1",
            )
        if not all("!" <= character <= "~" for character in self.api_key):
            raise ConfigError(
                f"the key of the {self.role.title} holds spaces, line ends or non-ASCII characters",
                next_step=f"copy it again into {self.role.key}, without quotes",
            )

    @property
    def name(self) -> str:
        """What calls are recorded under."""
        return self.identity or self.base_url.rstrip("/")

    @property
    def is_loopback(self) -> bool:
        return urlsplit(self.base_url).hostname in ("127.0.0.1", "::1", "localhost")

    @property
    def proxy(self) -> str | None:
        """The proxy that calls go through, if any."""
        return self._env_proxy[1] if self.use_env_proxies else None

    @property
    def ignored_proxy(self) -> str:
        """The variable that names a proxy which calls would take if HTTP_USE_ENV_PROXIES said so; else empty."""
        return "" if self.use_env_proxies else self._env_proxy[0]

    @property
    def _env_proxy(self) -> tuple[str, str | None]:
        """The proxy that the environment names for this address, after its variable. This machine needs none."""
        parts, proxies = urlsplit(self.base_url), getproxies_environment()
        if self.is_loopback or proxy_bypass(parts.hostname or ""):
            return "", None
        kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
        if kind is None:
            return "", None
        proxy = proxies[kind]
        return f"{kind}_PROXY".upper(), proxy if "://" in proxy else f"http://{proxy}"

    def scrubbed(self, text: str) -> str:
        """The text without the key, if it repeats it."""
        return text.replace(self.api_key, "…") if len(self.api_key) >= SHORTEST_SECRET else text

    def is_key_in(self, body: bytes) -> bool:
        """Whether a JSON body repeats the key, escaped or not, at whatever depth of nesting."""
        if len(self.api_key) < SHORTEST_SECRET:
            return False
        plain = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]) if match[1] else b"/", body)
        key = self.api_key.encode()
        return key in body or key in plain


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
