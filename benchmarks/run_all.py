"""Run the scripts behind the project's figures and write down what they found.

    python benchmarks/run_all.py            all of them (make bench)
    python benchmarks/run_all.py NAME …     only these; what the others found stays as it stands

A script says each of its claims as one line of JSON. They go to results.jsonl, one line a claim, and from there to
RESULTS.md. A script that fails is written down as failed and hinders no other. Exit status 1 when one of those that
ran failed or does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS, TABLE = FOLDER / "results.jsonl", FOLDER / "RESULTS.md"
NO_CLAIMS = {"run_all", "loopback_teacher", "scaling_model", "served_teacher", "stock_round"}
HEAD = """\
# What the benchmarks found

Written by `make bench` from `results.jsonl`; each row is printed again by its command. Values are medians where a
script repeats its measurement, with [least, greatest] where it tells them: machines are noisy, and a figure near its
bar may fall on the other side next time.

| Claim | Value | Unit | Bar | Holds | Machine | Command | Date |
|---|---|---|---|---|---|---|---|
"""
Record = dict[str, Any]
"""`script`, `command`, `date` and either the `result` that the script printed or what it `failed` with."""


def run(script: str) -> list[Record]:
    """What one script claims; its output goes on to the terminal as it comes."""
    record: Record = {"script": script, "command": f"python benchmarks/{script}.py", "date": time.strftime("%Y-%m-%d")}
    command = [sys.executable, str(FOLDER / f"{script}.py")]
    claims = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            if result := claim_of(line):
                claims.append({**record, "result": result})
    if child.returncode:
        return [*claims, {**record, "failed": f"exit status {child.returncode}"}]
    return claims or [{**record, "failed": "no claim in its output"}]


def claim_of(line: str) -> dict[str, Any] | None:
    """The claim on a line of output, if it is one."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"claim", "value", "holds"} <= found.keys() else None


def falls_short(record: Record) -> bool:
    """A script that failed or does not hold; one that could not measure here (`holds` is null) says so itself."""
    return "failed" in record or record["result"]["holds"] is False


def row(record: Record) -> str:
    """A line of the table."""
    command = f"`{record['command']}`"
    if "failed" in record:
        cells = [f"{record['script']} **failed**: {record['failed']}", "", "", "", "**no**", "", command]
    else:
        result = record["result"]
        value = shown(result["value"]) + (f" {result['spread']}" if "spread" in result else "")
        yes = {True: "yes", False: "**no**"}.get(result["holds"], f"not measured: {result.get('reason', '')}")
        cells = [result["claim"], value, result.get("unit", ""), shown(result.get("bar", "")), yes]
        cells += [result.get("machine", ""), command]
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in [*cells, record["date"]]) + " |\n"


def shown(value: Any) -> str:
    """Several figures as a list with semicolons, with their names where they have some."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {shown(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(shown, value))
    return "–" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)


def main() -> int:
    scripts = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NO_CLAIMS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(scripts)}")
    names = [name.removesuffix(".py") for name in parser.parse_args().names] or scripts
    if unknown := sorted(set(names) - set(scripts)):
        parser.error(f"{', '.join(unknown)}: no such script; there are {', '.join(scripts)}")
    bad = []
    for name in names:
        print(f"== {name}", flush=True)
        found = run(name)
        bad += [name] * any(map(falls_short, found))
        # After each script, so that an interruption loses only the one that it meets.
        lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
        kept = [record for record in map(json.loads, lines) if record["script"] in scripts and record["script"] != name]
        records = sorted(kept + found, key=lambda record: str(record["script"]))
        RESULTS.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
        TABLE.write_text(HEAD + "".join(map(row, records)), encoding="utf-8")
    print(f"{TABLE}: {len(names) - len(bad)} of {len(names)} hold" + (f", not {', '.join(bad)}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
