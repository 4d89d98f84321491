import json
from collections.abc import Iterator
from typing import Any

import pytest

from prosetting.core.artifacts import (
    draw_seed,
    make_folder,
    read_json,
    remove_temporaries,
    replace_atomically,
    write_json,
)
from prosetting.errors import DataError


def test_a_json_file_carries_its_version_and_keeps_times_in_meta(tmp_path):
    write_json(tmp_path / "a.json", {"round": 1}, seconds=2.0)
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["schema_version"] == 1
    assert found["round"] == 1
    assert set(found["meta"]) == {"written_at", "seconds"}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"round": 1})

    def write_half() -> None:
        with replace_atomically(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        write_half()
    assert read_json(path)["round"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"schema_version": 1, "rou')
    with pytest.raises(DataError, match=r"a\.json cannot be read"):
        read_json(tmp_path / "a.json")


def test_a_file_of_another_version_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"schema_version": 7}')
    with pytest.raises(DataError, match="schema version 1"):
        read_json(tmp_path / "a.json")


def test_draws_depend_on_every_part_of_their_name_and_on_nothing_else():
    assert draw_seed(1, 2, "q", 3) == draw_seed(1, 2, "q", 3)
    assert len({draw_seed(1, 2, "q", 3), draw_seed(1, 2, "q", 4), draw_seed(1, 3, "q", 3), draw_seed(12, "q", 3)}) == 4
    assert 0 <= draw_seed("x") < 2**63


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, replace_atomically(tmp_path / "a.json"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.json")


def test_only_what_killed_writers_left_is_swept(tmp_path):
    left = tmp_path / "data" / ".a.json.123.tmp"
    kept = [tmp_path / "data" / name for name in ("a.json", ".b.tmp", "c.123.tmp")]
    make_folder(tmp_path / "data")
    for path in (left, *kept):
        path.write_text("")
    remove_temporaries(tmp_path)
    assert sorted((tmp_path / "data").iterdir()) == sorted(kept)


def test_folders_are_made_with_those_above_them(tmp_path):
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


ROWS: list[dict[str, Any]] = [
    {"a": "1\n2", "b": [1, None]},
    {},
    {"c": {"d": "é\u2028", "e": [], "f": [{}]}},
    {"g": 0.1, "h": "a, b: c", "i": True},
    {"j": (1,)},
    {"k": []},
]


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS])
def test_rows_written_one_by_one_are_the_bytes_of_the_whole(tmp_path, rows):
    write_json(tmp_path / "a.json", {"round": 1, "rows": iter(rows), "n": 2}, seconds={"x": 1})
    found = (tmp_path / "a.json").read_text(encoding="utf-8")
    whole = {"schema_version": 1, "round": 1, "rows": rows, "n": 2, "meta": json.loads(found)["meta"]}
    assert found == json.dumps(whole, ensure_ascii=False, indent=1)


def test_rows_that_fail_half_way_leave_the_old_file(tmp_path):
    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise RuntimeError("torn")

    write_json(tmp_path / "a.json", {"round": 1})
    with pytest.raises(RuntimeError, match="torn"):
        write_json(tmp_path / "a.json", {"rows": rows()})
    assert read_json(tmp_path / "a.json")["round"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
