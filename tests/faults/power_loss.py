"""What a disk may hold after the power went: a model of synced and unsynced writes, renames and folder entries.

A file's content is sure from its last fsync on, a name from the last fsync of its folder on. What was done since may
be there or not: each change of a folder by itself, of a content nothing, a part or all. The journal is SQLite's own
business and stands as it was committed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

JOURNAL = "prosetting.db"
Event = tuple[str, str, str, bytes | None]
"""(what, path, second path, content of a file when it was synced or renamed)"""


@dataclass
class Recorded:
    """The events of a run, and what the journal's files held when each of them happened."""

    events: list[Event]
    journals: list[dict[str, bytes]]


@dataclass
class Node:
    """A file (`entries` None) or a folder, as it is and as the disk surely has it."""

    content: bytes = b""
    sure_content: bytes | None = None
    entries: dict[str, Node] | None = None
    sure_entries: dict[str, Node] = field(default_factory=dict)
    pending: list[dict[str, Node | None]] = field(default_factory=list)

    def change(self, names: dict[str, Node | None]) -> None:
        assert self.entries is not None
        for name, node in names.items():
            self.entries.pop(name, None)
            if node is not None:
                self.entries[name] = node
        self.pending.append(names)

    def sync(self) -> None:
        if self.entries is None:
            self.sure_content = self.content
        else:
            self.sure_entries, self.pending = dict(self.entries), []


def record(workspace: Path, log: Path) -> None:
    """Note every fsync, rename and new folder of this process below `workspace`, with the journal at that time."""
    real_sync, real_replace, real_mkdir = os.fsync, os.replace, os.mkdir
    stream = log.open("ab")
    one_at_a_time = threading.Lock()  # round files are written in a thread beside the event loop

    def note(what: str, path: str, other: str = "", content: bytes | None = None) -> None:
        if Path(path).is_relative_to(workspace.parent):
            pickle.dump(((what, path, other, content), committed(workspace / JOURNAL)), stream)
            stream.flush()

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        with one_at_a_time:
            real_sync(descriptor)
            note("sync", str(path), "", path.read_bytes() if path.is_file() else None)

    def replace(source: Any, target: Any) -> None:
        with one_at_a_time:
            content = Path(source).read_bytes() if Path(source).is_file() else None
            real_replace(source, target)
            note("rename", str(source), str(target), content)

    def mkdir(path: Any, *more: Any, **named: Any) -> None:
        with one_at_a_time:
            real_mkdir(path, *more, **named)
            note("mkdir", str(path))

    os.fsync, os.replace, os.mkdir = fsync, replace, mkdir


def committed(journal: Path) -> dict[str, bytes]:
    """The journal as it is committed now, whatever another thread is about to write."""
    if not (journal.exists() and journal.stat().st_size):
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=30)) as db:
        return {journal.name: db.serialize()}


def recorded(log: Path) -> Recorded:
    events, journals = [], []
    with log.open("rb") as stream:
        while True:
            try:
                event, journal = pickle.load(stream)
            except EOFError:
                return Recorded(events, journals)
            events.append(event)
            journals.append(journal)


class Disk:
    """The model, fed with events in their order. `root` stands from the beginning."""

    def __init__(self, root: Path) -> None:
        self._root_path = root
        self._root = Node(entries={})

    def apply(self, event: Event) -> None:
        what, path, other, content = event
        if what == "mkdir":
            self._folder(path).change({Path(path).name: Node(entries={})})
        elif what == "sync":
            self._seen(path, content).sync()
        else:
            node = self._seen(path, content)
            self._folder(path).change({Path(path).name: None, Path(other).name: node})

    def _seen(self, path: str, content: bytes | None) -> Node:
        """The node of a path; what nobody told of was created and written before now."""
        if Path(path) == self._root_path:
            return self._root
        folder, name = self._folder(path), Path(path).name
        assert folder.entries is not None
        if name not in folder.entries:
            folder.change({name: Node() if content is not None else Node(entries={})})
        node = folder.entries[name]
        if content is not None and content != node.content:
            node.content = content
        return node

    def _folder(self, path: str) -> Node:
        node = self._root
        for name in Path(path).relative_to(self._root_path).parent.parts:
            assert node.entries is not None
            node = node.entries[name]
        return node

    def after_power_loss(self, draw: Draw) -> dict[Path, bytes]:
        """One content of the disk that may be found, by path below the root."""
        return dict(_found(self._root, Path(), draw))


class Draw:
    """What becomes of what was not synced: `none` of it, `all` of it, or whatever a seeded draw says."""

    def __init__(self, kind: str, seed: int = 0) -> None:
        self._kind, self._rng = kind, random.Random(seed)

    def keeps(self) -> bool:
        return self._kind == "all" or (self._kind == "drawn" and self._rng.random() < 0.5)

    def content(self, whole: bytes, sure: bytes | None) -> bytes:
        if whole == sure:
            return whole
        torn = whole[: self._rng.randrange(len(whole) + 1)]
        return torn if self._kind == "drawn" else b""


def _found(node: Node, path: Path, draw: Draw) -> Iterator[tuple[Path, bytes]]:
    if node.entries is None:
        yield path, draw.content(node.content, node.sure_content)
        return
    entries: dict[str, Node] = dict(node.sure_entries)
    for names in node.pending:
        if draw.keeps():
            for name, changed in names.items():
                entries.pop(name, None)
                if changed is not None:
                    entries[name] = changed
    for name, child in entries.items():
        yield from _found(child, path / name, draw)


def states(found: Recorded, root: Path, draws: Sequence[tuple[str, int]]) -> Iterator[tuple[int, dict[Path, bytes]]]:
    """For every prefix of the events, what each draw leaves; with the number of its last event."""
    disk = Disk(root)
    for number, event in enumerate(found.events):
        disk.apply(event)
        for kind, seed in draws:
            yield number, disk.after_power_loss(Draw(kind, seed + number))


def write_state(root: Path, state: dict[Path, bytes], journal: dict[str, bytes], workspace: Path) -> None:
    """Lay the state out on the real disk, with the journal as it was committed."""
    files = {root / path: content for path, content in state.items()}
    for path, content in files.items() | {(workspace / name, held) for name, held in journal.items()}:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
