"""Where a request may go: to the endpoint's own address and nowhere else, with real servers on either side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from http_peer import GOOD, QUESTION, RIGHT, error, http_answer, peer, run

from prosetting.errors import TeacherUnavailable
from prosetting.teachers.endpoint import SOLVER, Endpoint
from prosetting.teachers.http_client import EndpointClient
from prosetting.teachers.http_teacher import HttpTeacher

KEY = "sk-very-secret-1234"
ELSEWHERE = "http://teacher.invalid:9/v1"
"""No such host (RFC 6761): only a proxy can answer for it."""
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies_but_the_test_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def teacher_at(endpoint: Endpoint) -> HttpTeacher:
    return HttpTeacher(endpoint, concurrent_workers=2, timeout_s=20.0, max_retries=0, retry_delay_s=0.0)


async def failure_at(endpoint: Endpoint) -> TeacherUnavailable:
    teacher = teacher_at(endpoint)
    try:
        with pytest.raises(TeacherUnavailable) as caught:
            await teacher.probe()
    finally:
        await teacher.close()
    return caught.value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_named_and_its_target_receives_nothing(status: int) -> None:
    async def main() -> None:
        async with peer(GOOD) as target:
            answer = http_answer(status, b"moved", f"Location: {target.base_url}/chat/completions")
            async with peer(answer) as server:
                teacher = teacher_at(Endpoint(server.base_url, KEY, "judge"))
                with pytest.raises(TeacherUnavailable) as caught:
                    await teacher.grade(QUESTION, "5")
                with pytest.raises(TeacherUnavailable):
                    await teacher.probe()
                await teacher.close()
                assert len(server.requests) == 2
            assert target.requests == []
            assert f"redirects to {target.base_url}/chat/completions ({status})" in caught.value.what
            assert "set TEACHER_BASE_URL" in caught.value.next_step

    run(main)


def test_a_redirect_within_the_host_is_not_followed_either() -> None:
    async def main() -> None:
        async with peer(http_answer(308, b"", "Location: /v2/models"), GOOD) as server:
            failure = await failure_at(Endpoint(server.base_url, KEY, "judge"))
            assert len(server.requests) == 1
            assert "redirects to /v2/models (308)" in failure.what

    run(main)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        (f"Location: http://x.example/{KEY}?k={KEY}", "redirects to http://x.example/… (307)"),
        ("Location: http://x.example/\x1b[2J", "redirects to http://x.example/\\x1b[2J (307)"),
        (f"Location: http://x.example/{'a' * 5000}", "aaa (307)"),
        ("Location: file:///etc/passwd", "redirects to file:///etc/passwd (307)"),
        ("X-Nothing: here", "redirects to nowhere (307)"),
    ],
    ids=["key", "escape", "long", "file", "none"],
)
def test_where_a_redirect_points_is_shown_as_hostile_text(location: str, shown: str) -> None:
    async def main() -> None:
        async with peer(http_answer(307, b"", location)) as server:
            failure = await failure_at(Endpoint(server.base_url, KEY, "judge", role=SOLVER))
        assert shown in failure.what
        assert KEY not in str(failure)
        assert len(failure.what) < 400
        assert "set SOLVER_BASE_URLS" in failure.next_step

    run(main)


@dataclass
class Proxy:
    """A real HTTP proxy in so far as it takes requests for any host; it answers them itself."""

    url: str = ""
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        if head.startswith("CONNECT"):
            writer.write(error(502, "no tunnels"))
        else:
            length = int(head.lower().partition("content-length:")[2].split()[0])
            await reader.readexactly(length)
            writer.write(GOOD)
        await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def proxy() -> AsyncIterator[Proxy]:
    here = Proxy()
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    here.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield here


def use(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_gets_nothing_unless_it_is_asked_for(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with proxy() as between:
            use(monkeypatch, **{variable: between.url})
            failure = await failure_at(Endpoint(ELSEWHERE, KEY, "judge"))
            assert between.heads == []
            assert "cannot be reached" in failure.what
            assert f"{variable.upper()} is set and not used: HTTP_USE_ENV_PROXIES=true" in failure.next_step

    run(main)


def test_a_proxy_of_the_environment_is_used_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with proxy() as between:
            use(monkeypatch, HTTP_PROXY=between.url)
            teacher = teacher_at(Endpoint(ELSEWHERE, KEY, "judge", use_env_proxies=True))
            assert await teacher.grade(QUESTION, "5") == RIGHT
            await teacher.close()
            assert between.heads[0].startswith(f"POST {ELSEWHERE}/chat/completions ")

    run(main)


def test_a_proxy_without_a_scheme_is_one_of_http(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with proxy() as between:
            use(monkeypatch, http_proxy=between.url.removeprefix("http://"))
            teacher = teacher_at(Endpoint(ELSEWHERE, KEY, "judge", use_env_proxies=True))
            assert await teacher.grade(QUESTION, "5") == RIGHT
            await teacher.close()

    run(main)


def test_a_key_for_an_https_endpoint_is_not_shown_to_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with proxy() as between:
            use(monkeypatch, HTTPS_PROXY=between.url)
            secure = ELSEWHERE.replace("http://", "https://")
            failure = await failure_at(Endpoint(secure, KEY, "judge", use_env_proxies=True))
            assert between.heads
            assert all(head.startswith("CONNECT teacher.invalid:9 ") for head in between.heads)
            assert KEY not in "".join(between.heads)
            assert "cannot be reached" in failure.what

    run(main)


@pytest.mark.parametrize("asked_for", [False, True])
def test_this_machine_s_servers_are_never_reached_through_a_proxy(
    asked_for: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with proxy() as between, peer(GOOD) as server:
            use(monkeypatch, HTTP_PROXY=between.url, ALL_PROXY=between.url)
            endpoint = Endpoint(server.base_url, KEY, "judge", use_env_proxies=asked_for)
            client = EndpointClient(endpoint, connections=1, timeout_s=20.0)
            await client.send("/chat/completions", {})
            await client.close()
            assert endpoint.ignored_proxy == ""
            assert between.heads == []

    run(main)


def test_no_hint_is_given_where_no_proxy_would_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Endpoint(ELSEWHERE, KEY, "judge").ignored_proxy == ""
    use(monkeypatch, HTTP_PROXY="http://127.0.0.1:1", NO_PROXY=".invalid")
    assert Endpoint(ELSEWHERE, KEY, "judge").ignored_proxy == ""
    assert Endpoint("https://teacher.example/v1", KEY, "judge").ignored_proxy == ""
