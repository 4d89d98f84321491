"""Names from files and servers never become paths: a whole round on questions and a model that try it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from whole_runs import clean_env

from prosetting.collectors.replay_server import load_recordings
from prosetting.core.openai_server import listen
from prosetting.core.server_faults import FaultDraw

ESCAPE = "../../../escaped"
NAMES = [ESCAPE, "/tmp/escaped-absolute", "a/b\\escaped", "~/escaped", "escaped\x00nul", "escaped.." + "x" * 300]
ATTEMPTS = 2


def test_ids_and_texts_of_questions_and_model_names_become_no_paths(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b" / "c"
    home.mkdir(parents=True)
    questions, recorded, workspace = home / "questions.jsonl", home / "recorded.jsonl", home / "workspace"
    rows = [{"id": name, "question_id": name, "question": f"{name} 1+1?", "answer": "2"} for name in NAMES]
    write(questions, [row | {"category": row["id"], "source": row["id"]} for row in rows])
    attempts = [
        {"question": row["question"], "response": f"\\boxed{{{n + 2}}}"} for row in rows for n in range(ATTEMPTS)
    ]
    write(recorded, attempts)
    (home / "empty.env").touch()
    before = paths_below(tmp_path)

    server = listen(0, ESCAPE, load_recordings(recorded).answer, FaultDraw(()), any_port="")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "env-file": "empty.env",
        "workspace-dir": "workspace",
        "questions-file": questions,
        "solver-model-path": ESCAPE,
        "solver-model-name": ESCAPE,
        "solver-base-urls": f"http://127.0.0.1:{server.server_address[1]}/v1",
        "total-rounds": 1,
        "first-training-round": 2,
        "attempts-per-question": ATTEMPTS,
    }
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "prosetting", "run", *flags]
    environ = clean_env() | {"HOME": str(home), "TMPDIR": str(home)}
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=280, env=environ)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr[-4000:]

    drawn = json.loads((workspace / "data" / "round_01_trajectories.json").read_text(encoding="utf-8"))["rows"]
    assert len(drawn) == len(NAMES) * ATTEMPTS
    made = paths_below(tmp_path) - before
    outside = {path for path in made if not path.is_relative_to(workspace)}
    assert {path for path in outside if not path.is_relative_to(home / ".cache")} == set()
    assert [path for path in made if "escaped" in path.name] == []
    assert all(path.resolve().is_relative_to(workspace.resolve()) for path in made - outside)
    assert not Path("/tmp/escaped-absolute").exists()


def write(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def paths_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))
