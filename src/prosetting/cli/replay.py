"""`prosetting replay`: recorded attempts, served as a Solver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Rows with question and response.")],
    port: Annotated[int, typer.Option("--port", help="Loopback port to listen on. 0: any free one.")] = 0,
    model: Annotated[
        str | None, typer.Option("--model", help="Name of the model it serves. Default: prosetting-replay.")
    ] = None,
    fault: Annotated[
        str, typer.Option("--fault", metavar="NAME@PROBABILITY,…", help="Misbehave on order: 429@0.1,hang@0.02")
    ] = "",
    fault_seed: Annotated[int, typer.Option("--fault-seed", help="Another seed draws other faults.")] = 0,
) -> None:
    """Serve recorded attempts as an OpenAI-compatible Solver on 127.0.0.1, until it is ended.

    Prints {"port": N} once it listens. It answers a recorded question with its recorded responses, in file order.

    \b
    Example:
      prosetting replay attempts.jsonl --port 8100 &
      SOLVER_BASE_URLS=http://127.0.0.1:8100/v1 SOLVER_MODEL_NAME=prosetting-replay prosetting run
    """
    from prosetting.collectors.replay_server import MODEL, load_recordings
    from prosetting.core.openai_server import listen
    from prosetting.core.server_faults import ON_THE_WAY, FaultDraw, parse_faults

    faults = FaultDraw(parse_faults(fault, known=ON_THE_WAY), fault_seed)
    recordings = load_recordings(file)
    listen(port, model or MODEL, recordings.answer, faults, any_port="add --port 0").serve()
