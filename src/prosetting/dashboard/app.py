"""The dashboard's routes: each page is a template filled by a function of `pages`, read in a thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs, quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from prosetting.core.control import Wish, ask_run
from prosetting.core.journal_rows import Zone
from prosetting.core.workspace import Workspace
from prosetting.dashboard import pages
from prosetting.dashboard.feed import Feed, Pace
from prosetting.dashboard.security import Guard, Sessions
from prosetting.errors import DataError, ProSettingError, WorkspaceError
from prosetting.managers.html import css, environment
from prosetting.records import PoolReason

HERE = Path(__file__).parent
MAX_BODY_BYTES = 4096
CONTROL_DEADLINE_S = 5.0
NAVIGATION = (
    ("/", "Overview"),
    ("/rounds", "Rounds"),
    ("/questions", "Questions"),
    ("/teachers", "Teachers"),
    ("/machine", "Machine"),
    ("/log", "Log"),
)
LIVE = ("overview", "teachers", "machine", "log")
"""Pages with a part that is kept up to date: the template `_NAME.html.j2`."""


def make_app(workspace: Workspace, sessions: Sessions, bound_to: str, ended: Callable[[], bool]) -> Starlette:
    """The application for one workspace. `bound_to` is the address it listens at (see `Guard`)."""
    site = _Site(workspace, sessions, Feed(ended))
    routes = [
        Route("/", site.page("overview", lambda request: pages.overview(workspace))),
        Route("/rounds", site.page("rounds", lambda request: pages.rounds(workspace))),
        Route("/questions", site.page("questions", site.questions)),
        Route("/questions/{question_id}", site.page("question", site.question)),
        Route("/teachers", site.page("teachers", lambda request: pages.teachers(workspace))),
        Route("/machine", site.page("machine", lambda request: pages.machine(workspace))),
        Route("/log", site.page("log", lambda request: pages.log(workspace, request.query_params.get("name", "")))),
        Route("/live/{name}", site.live),
        Route("/control", site.control, methods=["POST"]),
        Route("/sign-in", site.sign_in, methods=["GET", "POST"]),
        Route("/static/base.css", site.base_css),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, sessions=sessions, bound_to=bound_to)],
        exception_handlers=dict.fromkeys((ProSettingError, HTTPException, sqlite3.Error), site.refusal),
    )


class _Site:
    """What the routes share."""

    def __init__(self, workspace: Workspace, sessions: Sessions, feed: Feed) -> None:
        self._workspace = workspace
        self._sessions = sessions
        self._feed = feed
        self._pace = Pace()
        self._templates = environment(HERE / "templates")
        self._parts: dict[str, Callable[[Request], Mapping[str, Any]]] = {}

    def page(self, name: str, read: Callable[[Request], Mapping[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
        """A route that shows the template of this name, filled by what `read` finds."""
        self._parts[name] = read

        async def show(request: Request) -> Response:
            return HTMLResponse(await run_in_threadpool(self._render, f"{name}.html.j2", request, read))

        return show

    def _render(self, template: str, request: Request, read: Callable[[Request], Mapping[str, Any]]) -> str:
        found = {"pace": None, **read(request)}
        if (view := found.get("view")) is not None and view.current and found["now"].live:
            found["pace"] = self._pace.rates(view.current.round, (view.current.attempts, view.current.graded))
        return self._templates.get_template(template).render(**self._shared(request), **found)

    def _shared(self, request: Request) -> dict[str, Any]:
        live = request.url.path.strip("/") or "overview"
        query = f"?{request.url.query}" if request.url.query else ""
        return {
            "navigation": NAVIGATION,
            "path": request.url.path,
            "workspace": str(self._workspace.root),
            "workspace_name": self._workspace.root.name,
            "signed_in": request.state.signed_in,
            "live": f"/live/{live}{query}" if live in LIVE else "",
        }

    def questions(self, request: Request) -> Mapping[str, Any]:
        query = request.query_params
        if wanted := query.get("id", "").strip():
            raise _Elsewhere(f"/questions/{quote(wanted, safe='')}")
        round_ = query.get("round", "")
        return pages.questions(
            self._workspace,
            int(round_) if round_.isascii() and round_.isdigit() and len(round_) < 7 else None,
            _one_of(query.get("zone", ""), get_args(Zone)),
            _one_of(query.get("source", ""), get_args(PoolReason)),
            query.get("after", ""),
            query.get("before", ""),
        )

    def question(self, request: Request) -> Mapping[str, Any]:
        return pages.question(self._workspace, request.path_params["question_id"])

    async def live(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in LIVE:
            raise HTTPException(404)

        async def make() -> str:
            try:
                return await run_in_threadpool(self._render, f"_{name}.html.j2", request, self._parts[name])
            except (ProSettingError, sqlite3.Error) as error:
                return self._templates.get_template("_message.html.j2").render(error=_told(error))

        of = request.query_params.get("name", "") if name == "log" else ""
        stream = self._feed.stream(f"{name} {of}", make)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def control(self, request: Request) -> Response:
        form = await _form(request)
        if not request.state.signed_in:
            return RedirectResponse("/sign-in", status_code=303)
        try:
            wish = Wish(form.get("wish", ""))
        except ValueError:
            raise HTTPException(400) from None
        await run_in_threadpool(ask_run, self._workspace, wish, deadline_s=CONTROL_DEADLINE_S)
        return RedirectResponse("/", status_code=303)

    async def sign_in(self, request: Request) -> Response:
        wrong = False
        if request.method == "POST":
            name = await self._sessions.open((await _form(request)).get("token", ""))
            if name is not None:
                response = RedirectResponse("/", status_code=303)
                response.set_cookie(self._sessions.cookie, name, httponly=True, samesite="strict", path="/")
                return response
            wrong = True
        page = self._templates.get_template("sign_in.html.j2")
        shared = {**self._shared(request), "now": None, "wrong": wrong}
        return HTMLResponse(page.render(shared), status_code=403 if wrong else 200)

    async def base_css(self, request: Request) -> Response:
        return Response(css("base.css"), media_type="text/css")

    async def refusal(self, request: Request, error: Exception) -> Response:
        """A page that says what is wrong and what to do."""
        if isinstance(error, _Elsewhere):
            return RedirectResponse(error.path, status_code=303)
        shared = {**self._shared(request), "now": None}
        if isinstance(error, HTTPException):
            shared["live"] = ""
            what, status = f"There is no such page ({error.status_code}).", error.status_code
            error = WorkspaceError(what, next_step="choose one from the list above")
        else:
            error = _told(error)
            # A page of a run that has not begun turns into the run's by itself.
            status, shared["live"] = (404, "") if isinstance(error, DataError) else (503, shared["live"])
        page = self._templates.get_template("message.html.j2")
        return HTMLResponse(page.render(**shared, error=error), status_code=status)


def _told(error: Exception) -> ProSettingError:
    if isinstance(error, ProSettingError):
        return error
    return WorkspaceError(f"the journal cannot be read just now: {error}", next_step="try again in a moment")


class _Elsewhere(ProSettingError):
    """What was asked for has a page of its own."""

    def __init__(self, path: str) -> None:
        super().__init__(path, next_step="")
        self.path = path


def _one_of(value: str, values: tuple[str, ...]) -> Any:
    return value if value in values else None


async def _form(request: Request) -> dict[str, str]:
    """A small urlencoded form. Raises HTTPException for a large one."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413)
    return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
