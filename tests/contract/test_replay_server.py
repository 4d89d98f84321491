"""The replay server as a process, asked over HTTP by the official client."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from prosetting.collectors.replay_server import MODEL, load_recordings
from prosetting.core.openai_server import Ask
from prosetting.errors import DataError

SUM, LONGER = "What is 2 + 3?", "What is 2 + 3?\nGive it in words."
ROWS = [(SUM, "a"), ("Other?", "x"), (SUM, "b"), (LONGER, "five"), (SUM, "c")]
SERVE = "from prosetting.cli.replay import replay; import typer; typer.run(replay)"


def recorded(folder: Path, rows: list[tuple[str, str]] = ROWS) -> Path:
    file = folder / "attempts.jsonl"
    lines = [json.dumps({"question": question, "response": response, "label": 1}) for question, response in rows]
    file.write_text("\n\n".join(lines) + "\n")
    return file


@contextlib.contextmanager
def served(file: Path, *flags: str) -> Iterator[str]:
    """The base URL of a replay server."""
    command = [sys.executable, "-c", SERVE, str(file), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}/v1"
        finally:
            process.terminate()
            assert process.wait(30) == -signal.SIGTERM


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    file = recorded(tmp_path_factory.mktemp("replay"))
    with served(file) as url, openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        yield client


def asked(client: openai.OpenAI, text: str, n: int | None = None, seed: int | None = None) -> list[str | None]:
    completion = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": text}], n=n, seed=seed
    )
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0
    assert [choice.index for choice in completion.choices] == list(range(len(completion.choices)))
    assert {choice.finish_reason for choice in completion.choices} == {"stop"}
    return [choice.message.content for choice in completion.choices]


@pytest.mark.parametrize(("n", "texts"), [(None, ["a"]), (2, ["a", "b"]), (3, ["a", "b", "c"]), (9, ["a", "b", "c"])])
def test_n_gives_the_first_recorded_attempts_and_never_more(
    client: openai.OpenAI, n: int | None, texts: list[str]
) -> None:
    assert asked(client, SUM, n) == texts


def test_the_longest_recorded_question_that_the_message_begins_with_counts(client: openai.OpenAI) -> None:
    assert asked(client, f"{SUM}\nPut it into a box.", 1) == ["a"]
    assert asked(client, f"{LONGER}\nPut it into a box.", 1) == ["five"]
    assert asked(client, f"  {SUM} \n", 1) == ["a"]


@pytest.mark.parametrize("text", ["What is 2 + 3? Tell me.", "What is", "", "\n" * 50_000 + "x"])
def test_what_is_not_recorded_is_404_and_says_so(client: openai.OpenAI, text: str) -> None:
    with pytest.raises(openai.NotFoundError, match="no attempt is recorded for this question"):
        asked(client, text)


def test_models_and_an_unknown_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": SUM}])


@pytest.mark.parametrize(("n", "seed"), [(0, 1), (-1, 1), (10_000, 1)])
def test_a_bad_n_is_refused(client: openai.OpenAI, n: int, seed: int) -> None:
    with pytest.raises(openai.BadRequestError, match="n must be"):
        asked(client, SUM, n, seed)


def test_different_seeds_run_through_the_recorded_attempts_and_an_equal_one_repeats(tmp_path: Path) -> None:
    recordings = load_recordings(recorded(tmp_path))

    def answer(n: int, seed: int) -> list[str]:
        return recordings.answer(Ask(SUM, n, seed))

    assert [answer(1, 901), answer(1, 55), answer(1, 901), answer(1, 7), answer(1, 55)] == [
        ["a"],
        ["b"],
        ["a"],
        ["c"],
        ["b"],
    ]
    # The next round, with other seeds, begins again; a question asked in two portions gets each attempt once.
    assert [answer(2, 10), answer(1, 11), answer(2, 10)] == [["a", "b"], ["c"], ["a", "b"]]


def test_faults_meet_a_solver_too(tmp_path: Path) -> None:
    flags = ("--fault", "503:7@1", "--model", "mine")
    with served(recorded(tmp_path), *flags) as url, openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["mine"]
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="mine", messages=[{"role": "user", "content": SUM}])
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{not json", "line 2: not JSON"),
        ('["a"]', "line 2: a list, not an object"),
        ('{"question": "q"}', "line 2: 'response' is missing; it has 'question'"),
        ('{"question": "q", "response": 5}', "line 2: 'response' is not text"),
        ('{"question": " ", "response": "r"}', "line 2: the question is empty"),
        ("[" * 100_000, "line 2: not JSON"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(f'{{"question": "q", "response": "r"}}\n{line}\n')
    with pytest.raises(DataError, match=says):
        load_recordings(file)


def test_a_missing_and_an_empty_file_are_one_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load_recordings(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no rows"):
        load_recordings(tmp_path / "empty.jsonl")
