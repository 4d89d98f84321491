"""Stands in for vLLM where it is not installed: a package of that name with the one module that is started.

It takes the same arguments and listens as vLLM does, by the project's own loopback server, and leaves an engine process
behind when it is killed, as vLLM does. What it says is its process's number. tests/servers/ has the real one.
"""

from __future__ import annotations

import os
from pathlib import Path

API_SERVER = """
import argparse, json, os, signal, subprocess, sys, time
from prosetting.core.openai_server import listen
from prosetting.core.server_faults import FaultDraw, parse_faults

parser = argparse.ArgumentParser()
for name in ("model", "served-model-name", "host", "port", "tensor-parallel-size", "generation-config", "manner"):
    parser.add_argument(f"--{name}")
given = parser.parse_args()
print(json.dumps({"started": vars(given), "gpus": os.environ["CUDA_VISIBLE_DEVICES"]}), flush=True)
engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
if given.manner == "ends":
    sys.exit("ValueError: the model cannot be loaded")
if given.manner == "hangs":
    time.sleep(600)
if given.manner == "lingers":
    signal.signal(signal.SIGTERM, lambda number, frame: server.socket.close())
answer = lambda ask: [f"{os.getpid()} {given.model}"] * ask.n
server = listen(int(given.port), given.served_model_name, answer, FaultDraw(parse_faults("")), any_port="")
server.serve()
"""


def install(folder: Path) -> dict[str, str]:
    """Lay the package into a folder; what the environment must be for it to be found."""
    package = folder / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for part in (package, package.parent, package.parent.parent):
        (part / "__init__.py").touch()
    (package / "api_server.py").write_text(API_SERVER)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}
