"""Runs in verl's own environment: says what is installed there, checks a configuration, or runs a module of verl.

    PYTHON worker_verl.py check            {"packages": […], "overrides": […] | null} on stdin → one JSON line
    PYTHON worker_verl.py run MODULE ARG…  as `python -m MODULE ARG…`, but ends with the run that started it

Started as a file: nothing of ProSetting is installed there. Standard library only until verl is needed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

RUN_PID = "PROSETTING_RUN_PID"  # as in core/children.py
WATCH_INTERVAL_S = 1.0


def main() -> None:
    sys.path.pop(0)  # the folder of this file, whose names would stand in for packages
    _end_with_the_run()
    command, *rest = sys.argv[1:]
    if command == "check":
        asked = json.load(sys.stdin)
        found = {"packages": {name: _version(name) for name in asked["packages"]}, "problem": "", "resolved": None}
        if asked["overrides"] is not None:
            try:
                found["resolved"] = _resolved(asked["overrides"])
            except Exception as error:  # hydra, OmegaConf and verl each have their own
                found["problem"] = f"{error} ({error.__cause__})" if error.__cause__ else str(error)
        print("\n" + json.dumps(found), flush=True)
    else:
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _resolved(overrides: list[str]) -> dict[str, Any]:
    """verl's whole configuration with these overrides, as its trainer would compose and validate it."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    spec = importlib.util.find_spec("verl")
    assert spec is not None
    assert spec.origin is not None
    with initialize_config_dir(str(Path(spec.origin).parent / "trainer" / "config"), version_base=None):
        config = compose("ppo_trainer", overrides)

    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    # What renders prompts for verl's rollouts wants certain tokens of some families of models. Those that lack them
    # would fail late, each attempt by itself.
    model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    create_continuous_token_builder(
        model.tokenizer, hf_model_type=model.hf_config.model_type, processor=model.processor
    )
    return dict(OmegaConf.to_container(config, resolve=True))


def _end_with_the_run() -> None:
    run_pid = int(os.environ.get(RUN_PID, "0"))
    if run_pid:
        threading.Thread(target=_watch, args=(run_pid,), daemon=True).start()


def _watch(run_pid: int) -> None:
    while _alive(run_pid):
        time.sleep(WATCH_INTERVAL_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except (OSError, IndexError):
        return True


if __name__ == "__main__":
    main()
