"""Every setting, in one validated model: its name, type, default, unit and meaning.

Where their values come from: `settings_sources.py`. `docs/settings.md` is generated from this file
(`python -m prosetting.config`). Light to import: no torch.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)


def _split_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


CommaInts = Annotated[tuple[int, ...], BeforeValidator(_split_commas)]
CommaFloats = Annotated[tuple[float, ...], BeforeValidator(_split_commas)]
CommaWords = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
OptionalText = Annotated[str | None, BeforeValidator(_none_if_empty)]
OptionalPath = Annotated[Path | None, BeforeValidator(_none_if_empty)]
OptionalCount = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_none_if_empty)]
OptionalPositive = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_none_if_empty)]
OptionalAmount = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(_none_if_empty)]


def _setting(default: Any, meaning: str, *, unit: str = "", fixed: bool = False, **limits: Any) -> Any:
    """One setting. `fixed`: it decides what the run computes, so a workspace keeps it for life."""
    extra: dict[str, Any] = {"unit": unit, "fixed": fixed}
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


class Settings(BaseModel):
    """All settings of a run. The environment variable of `total_rounds` is TOTAL_ROUNDS, its flag --total-rounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    # Models and files
    solver_model_path: str = _setting(
        "",
        "Solver to train: a Hugging Face model folder, or a hub name such as Qwen/Qwen3-8B. A run needs it",
        fixed=True,
    )
    generator_model_path: OptionalText = _setting(
        None,
        "Base model of the Generator, which learns in every round to write questions. Empty: none (docs/generator.md)",
        fixed=True,
    )
    questions_file: Path = _setting(
        Path("DataSet/seed_questions.json"), "The first round's questions, .json or .jsonl (docs/files.md)"
    )
    validation_data_file: OptionalPath = _setting(
        None, "Held-out questions that score every checkpoint and never enter a pool. Empty: no scores"
    )
    trust_remote_code: bool = _setting(
        False,
        "Run the Python files that come with a model. Dangerous: they can read your keys and files and do what you can."
        " Only for a model whose code you have read",
        fixed=True,
    )
    workspace_dir: Path = _setting(Path("/tmp/prosetting_workspace"), "Where a run keeps everything it makes")
    log_dir: OptionalPath = _setting(None, "Where log files go. Empty: WORKSPACE_DIR/logs")

    # Rounds
    total_rounds: int = _setting(5, "Rounds to run. May be raised later to go on", unit="rounds", ge=1)
    first_training_round: int = _setting(
        3,
        "First round that trains; earlier ones gather data. 4 is the other reading of the original",
        fixed=True,
        ge=1,
    )
    train_on: str = _setting(
        "untrained",
        "Pairs a training round uses: untrained (those not trained on yet), round (its own), or all (all so far)",
        fixed=True,
    )
    save_rounds: CommaInts = _setting((3, 4, 5), "Accepted for old .env files and ignored: every checkpoint is kept")
    seed: int = _setting(42, "Seed of every random draw; printed at the start", fixed=True, ge=0)
    training_framework: Literal["TRL_DPO", "VERL_PPO", "VERL_GRPO"] = _setting(
        "TRL_DPO",
        "Training flow: TRL_DPO (DPO through accelerate), or PPO or GRPO of verl in its own environment (docs/verl.md)",
        fixed=True,
    )

    # Question pool
    attempts_per_question: int = _setting(
        8, "Attempts of the Solver at each question", unit="attempts", fixed=True, ge=1
    )
    pool_policy: str = _setting(
        "replay",
        "What the next round plays: replay (Teacher2's new questions, failed ones, a share of the others), or fixed"
        " (the same questions in every round, and Teacher2 is not asked)",
        fixed=True,
    )
    replay_failed_share: float = _setting(
        1.0, "Share of the failed questions played again next round", fixed=True, ge=0, le=1
    )
    replay_other_share: float = _setting(
        0.2, "Share of the non-failed questions played again next round; 1 plays all", fixed=True, ge=0, le=1
    )
    max_pool_questions: OptionalCount = _setting(
        None, "Most questions of a round. Replays give way first. Empty: no limit", unit="questions", fixed=True
    )
    new_questions_per_round: OptionalCount = _setting(
        None,
        "Most new questions of Teacher2 a round. Empty: one for each question of the pool",
        unit="questions",
        fixed=True,
    )
    curriculum: str = _setting(
        "zones",
        "Which kind of question follows one, by its share of correct attempts: zones (all: harder; some: variant;"
        " none: easier), band (the same at the shares of CURRICULUM_BAND), or all (a variant of every question)",
        fixed=True,
    )
    curriculum_band: CommaFloats = _setting(
        (0.0, 0.75),
        "CURRICULUM=band: at or below the first share an easier question follows, at or above the second a harder one",
        unit="share of attempts",
        fixed=True,
    )
    enhance_too_hard: Literal["easier", "none"] = _setting(
        "easier", "Where CURRICULUM asks for an easier question: Teacher2 writes one, or none", fixed=True
    )

    # Solver
    solver_engine: Literal["transformers", "vllm", "ray"] = _setting(
        "transformers",
        "What samples: transformers (a child process), vllm (servers that the run starts on this machine), or ray"
        " (replicas on the nodes of a Ray cluster)",
    )
    solver_tensor_parallel: int = _setting(1, "GPUs of one server (vllm)", unit="GPUs", ge=1)
    solver_replicas: OptionalCount = _setting(
        None,
        "Servers to start (vllm). Empty: as many as PHYSICAL_SOLVER_GPU has room for; without a GPU 1",
        unit="servers",
    )
    solver_server_python: OptionalPath = _setting(
        None, "Interpreter of the environment that has vLLM. Empty: the one that runs this"
    )
    solver_server_args: str = _setting(
        "", "More arguments of vLLM's server, as in a shell: --max-model-len 4096 --gpu-memory-utilization 0.8"
    )
    solver_server_port: int = _setting(
        0, "Loopback port of the first server that is started, the next ones follow. 0: any free ones", ge=0, le=65535
    )
    solver_start_timeout: float = _setting(
        900.0, "How long servers may take to load a checkpoint, and SOLVER_RELOAD_COMMAND to end", unit="seconds", gt=0
    )
    solver_base_urls: CommaWords = _setting(
        (),
        "OpenAI-compatible servers that sample instead of this machine, such as http://host:8000/v1. @FILE: those in a"
        " file, one a line, read again as it changes. Empty: none",
    )
    solver_reload_command: str = _setting(
        "",
        "Run when the servers of SOLVER_BASE_URLS need other weights; {model} in it is the checkpoint's folder",
    )
    solver_api_key: SecretStr = _setting(SecretStr(""), "Key of these servers. Never logged or stored")
    solver_model_name: OptionalText = _setting(
        None, "Model asked for at these servers. Empty: the checkpoint's path", fixed=True
    )
    physical_solver_gpu: CommaInts = _setting(
        (4,), "GPUs that sample. Clamped to the machine unless set", unit="GPU ids"
    )
    gpu_sharing: bool = _setting(
        False, "Use GPUs on which other processes hold memory too, such as a teacher of your own. Else that is an error"
    )
    solver_instruction: str = _setting(
        "Please reason step by step, and put your final answer within \\boxed{}.",
        "Appended to each question on a line of its own. May be empty",
        fixed=True,
    )
    solver_batch_size: int = _setting(
        64, "Attempts sampled together; also what is committed together", unit="attempts", ge=1
    )
    solver_max_new_tokens: int = _setting(1024, "Longest attempt", unit="tokens", fixed=True, ge=1)
    solver_temperature: float = _setting(1.0, "Sampling temperature", fixed=True, gt=0)
    solver_top_p: float = _setting(1.0, "Nucleus sampling: keep this much probability", fixed=True, gt=0, le=1)

    # Teachers
    teacher_base_url: OptionalText = _setting(
        None,
        "OpenAI-compatible endpoint of Teacher1, such as http://host:8000/v1. Empty: the embedded teacher",
    )
    teacher_api_key: SecretStr = _setting(SecretStr(""), "Key of that endpoint. Never logged or stored")
    teacher_model_name: str = _setting(
        "prosetting-embedded", "Model asked for at that endpoint", fixed=True, min_length=1
    )
    teacher2_base_url: OptionalText = _setting(None, "Endpoint of Teacher2. Empty: as Teacher1")
    teacher2_api_key: SecretStr = _setting(SecretStr(""), "Key of Teacher2's endpoint. Empty: as Teacher1")
    teacher2_model_name: OptionalText = _setting(None, "Model of Teacher2. Empty: as Teacher1", fixed=True)
    teacher_concurrent_workers: int = _setting(32, "Calls in flight at a teacher", unit="calls", ge=1, le=1024)
    teacher_timeout: float = _setting(120.0, "Deadline of one call, all of it", unit="seconds", gt=0)
    teacher_max_retries: int = _setting(3, "Further tries of a call that failed", unit="tries", ge=0)
    teacher_retry_delay: float = _setting(1.0, "First wait between tries; doubles, with jitter", unit="seconds", ge=0)
    teacher_max_tokens_total: OptionalCount = _setting(
        None, "Tokens of all teacher calls, both ways, after which the run pauses. Empty: no limit", unit="tokens"
    )
    teacher_max_cost: OptionalAmount = _setting(
        None, "Cost of all teacher calls after which the run pauses. Needs prices. Empty: no limit", unit="currency"
    )
    teacher_price_prompt: OptionalAmount = _setting(
        None, "Teacher1's price of a million prompt tokens, in any currency", unit="currency"
    )
    teacher_price_completion: OptionalAmount = _setting(
        None, "Teacher1's price of a million completion tokens", unit="currency"
    )
    teacher2_price_prompt: OptionalAmount = _setting(
        None, "Teacher2's price of a million prompt tokens. Empty: as Teacher1", unit="currency"
    )
    teacher2_price_completion: OptionalAmount = _setting(
        None, "Teacher2's price of a million completion tokens. Empty: as Teacher1", unit="currency"
    )
    embedded_teacher_faults: str = _setting(
        "", "Rehearse an unreliable teacher: what the embedded one does wrong, such as 429@0.1,hang@0.02"
    )
    embedded_teacher_port: int = _setting(0, "Loopback port of the embedded teacher. 0: any free one", ge=0, le=65535)

    # Connections
    http_use_env_proxies: bool = _setting(
        False,
        "Reach teachers and SOLVER_BASE_URLS through the proxies that HTTP_PROXY, HTTPS_PROXY and ALL_PROXY name."
        " Never for this machine's own servers",
    )

    # Grading
    reward_function: OptionalText = _setting(
        None,
        "A verifier of your own, path/to/file.py:function or package.module:function; it decides before the rules",
        fixed=True,
    )

    # Preference pairs
    reference_as_chosen: bool = _setting(
        False, "Where no attempt was correct, take the question's worked solution as the chosen answer", fixed=True
    )
    max_pairs_per_question: OptionalCount = _setting(
        None, "Most pairs of one question. Empty: all correct × incorrect pairs", unit="pairs", fixed=True
    )
    all_correct_questions: str = _setting(
        "nothing",
        "What is made of a question whose attempts were all correct: nothing, or supervised (one of its attempts"
        " becomes a row that the sft loss trains on)",
        fixed=True,
    )
    supervised_rows_per_round: OptionalCount = _setting(
        None,
        "Most rows of ALL_CORRECT_QUESTIONS a round, validation's included. Empty: one for each such question",
        unit="rows",
        fixed=True,
    )
    shuffle_labels: bool = _setting(
        False, "Control experiment: permute the verdicts within each question before pairing", fixed=True
    )

    # TRL training
    physical_grpo_gpu: CommaInts = _setting(
        tuple(range(8)),
        "GPUs that train; PHYSICAL_DPO_GPU is another name for it. Clamped to the machine unless set",
        unit="GPU ids",
    )
    trl_num_processes: int = _setting(
        8, "Training processes (accelerate). Clamped to the machine unless set", unit="processes", ge=1
    )
    trl_mixed_precision: Literal["no", "fp16", "bf16"] = _setting(
        "bf16", "Mixed precision of training. 'no' without a GPU unless set", fixed=True
    )
    trl_sharding: Literal["none", "fsdp"] = _setting(
        "none",
        "none: each training process holds the model (DDP); fsdp: they share it (FSDP2), for large models",
    )
    accelerate_config_file: OptionalPath = _setting(
        None,
        "accelerate configuration of your own: DeepSpeed, several machines (docs/scaling.md). Empty: one is generated",
    )
    trl_lora_rank: int = _setting(
        0, "Train LoRA adapters of this rank and merge them into the model afterwards. 0: all weights", fixed=True, ge=0
    )
    trl_lora_alpha: OptionalAmount = _setting(None, "LoRA's α. Empty: twice the rank", fixed=True)
    trl_lora_targets: CommaWords = _setting(
        ("all-linear",), "Layers that get adapters, such as q_proj,v_proj; all-linear: all but the output", fixed=True
    )
    trl_learning_rate: float = _setting(1e-6, "Peak learning rate", fixed=True, gt=0)
    trl_lr_scheduler: str = _setting("linear", "Learning-rate schedule, as transformers names it", fixed=True)
    trl_num_epochs: float = _setting(1.0, "Passes over the pairs", unit="epochs", fixed=True, gt=0)
    dpo_engine: Literal["grouped", "stock"] = _setting(
        "grouped",
        "grouped: each distinct attempt is computed once, its prompt once; stock: TRL pair by pair. The same update",
        fixed=True,
    )
    dpo_batch_questions: int = _setting(
        1, "Questions in a step of one process, all their pairs (grouped)", unit="questions", fixed=True, ge=1
    )
    dpo_max_tokens_per_forward: int = _setting(
        16384,
        "Most tokens in one forward pass; a step of more is computed in parts, with the same result (grouped)",
        unit="tokens",
        ge=64,
    )
    trl_batch_size: int = _setting(
        4, "Pairs in a step of one process (DPO_ENGINE=stock only)", unit="pairs", fixed=True, ge=1
    )
    trl_gradient_accumulation: int = _setting(4, "Steps before an update", unit="steps", fixed=True, ge=1)
    trl_loss: str = _setting(
        "dpo",
        "Losses, weights and β by one name: dpo, dpo+sft, dpo_norm, ipo, apo, sft (docs/strategies.md)",
        fixed=True,
    )
    trl_beta: OptionalPositive = _setting(
        None, "β: how far the policy is held to the reference. Empty: as TRL_LOSS says", fixed=True
    )
    trl_loss_type: CommaWords = _setting(
        (), "Instead of TRL_LOSS: loss or losses, as TRL names them: sigmoid,sft. Empty: as TRL_LOSS says", fixed=True
    )
    trl_loss_weights: CommaFloats = _setting(
        (), "Weight of each loss, in their order. Empty: as TRL_LOSS says, of one TRL_LOSS_TYPE 1", fixed=True
    )
    trl_max_length: int = _setting(
        2048, "Longest prompt + attempt; longer ones are cut", unit="tokens", fixed=True, ge=8
    )
    trl_gradient_checkpointing: bool = _setting(True, "Trade time for memory in training")
    trl_launcher: Literal["accelerate", "ray"] = _setting(
        "accelerate",
        "What starts the training processes: accelerate on this machine, or ray on the nodes of a Ray cluster",
    )
    trl_stop_grace: float = _setting(
        30.0, "How long a training that is asked to stop may take to save a checkpoint", unit="seconds", ge=0
    )
    trl_report_to: CommaWords = _setting((), "Trackers of transformers to report to: tensorboard,wandb")

    # Ray (docs/ray.md), for SOLVER_ENGINE=ray and TRL_LAUNCHER=ray
    ray_cluster_address: OptionalText = _setting(
        None, "Address of a running cluster, such as 10.0.0.1:6379. Empty: one is started on this machine when needed"
    )
    ray_solver_replicas: OptionalCount = _setting(
        None, "Copies of the Solver that sample. Empty: as many as the cluster has room for", unit="replicas"
    )
    ray_solver_gpus: int = _setting(1, "GPUs of each replica. 0: the CPU", unit="GPUs", ge=0)
    ray_solver_cpus: int = _setting(1, "CPU cores kept for each replica", unit="cores", ge=1)
    ray_trainer_gpus: int = _setting(
        1, "GPUs of each of the TRL_NUM_PROCESSES training processes: 1, or 0 for the CPU", unit="GPUs", ge=0, le=1
    )
    ray_trainer_cpus: int = _setting(1, "CPU cores kept for each training process", unit="cores", ge=1)
    ray_autoscaling: bool = _setting(
        False, "The cluster starts nodes on demand: what it lacks at the start is waited for, not refused"
    )
    ray_node_timeout: float = _setting(
        600.0,
        "How long a stage waits while no replica, or not all training processes, can run for want of nodes",
        unit="seconds",
        gt=0,
    )

    # verl training (VERL_PPO, VERL_GRPO). Attempts are drawn as SOLVER_TEMPERATURE, _TOP_P and _MAX_NEW_TOKENS say
    verl_python: OptionalPath = _setting(
        None,
        "Python of verl's own environment, which `make verl-env` builds (docs/verl.md). VERL_PPO and VERL_GRPO need it",
    )
    verl_attempts_per_question: OptionalCount = _setting(
        None,
        "Attempts drawn at a question in training. Empty: 1 for VERL_PPO, ATTEMPTS_PER_QUESTION for VERL_GRPO",
        unit="attempts",
        fixed=True,
    )
    verl_batch_questions: int = _setting(
        128, "Most questions in a step, all GPUs together", unit="questions", fixed=True, ge=1
    )
    verl_mini_batch_questions: int = _setting(
        32, "Most questions in an update of the weights", unit="questions", fixed=True, ge=1
    )
    verl_max_tokens_per_gpu: int = _setting(16384, "Most tokens in one forward pass of a GPU", unit="tokens", ge=64)
    verl_max_prompt_length: int = _setting(
        1024, "Longest prompt; questions with a longer one are left out", unit="tokens", fixed=True, ge=8
    )
    verl_num_epochs: int = _setting(1, "Passes over the questions", unit="epochs", fixed=True, ge=1)
    verl_learning_rate: float = _setting(1e-6, "Learning rate of the Solver", fixed=True, gt=0)
    verl_critic_learning_rate: float = _setting(1e-5, "Learning rate of the critic (VERL_PPO)", fixed=True, gt=0)
    verl_kl_coef: float = _setting(
        0.001,
        "Weight in the loss of the divergence from the round's start. 0: none, and no reference",
        fixed=True,
        ge=0,
    )
    verl_rollout_engine: str = _setting("vllm", "What draws attempts in training, as verl names it: vllm, sglang")
    verl_tensor_parallel: int = _setting(1, "GPUs that one copy of it is spread over", unit="GPUs", ge=1)
    verl_gpu_memory: float = _setting(0.5, "Share of a GPU's memory that it may take", gt=0, lt=1)
    verl_save_steps: int = _setting(
        20,
        "Steps between checkpoints; what is trained after the last one is lost when a training is stopped",
        ge=1,
        unit="steps",
    )
    verl_overrides: str = _setting(
        "", "More settings of verl, as its command line takes them; they win: 'a.b=1 +c.d=2'", fixed=True
    )

    # Generator (docs/generator.md). What is not here it shares with TRL_… and SOLVER_…
    generator_share: float = _setting(
        0.0,
        "Share of the new questions that the Generator writes instead of Teacher2",
        fixed=True,
        ge=0,
        le=1,
    )
    generator_trials: int = _setting(
        4,
        "The Solver's attempts at each draft of the Generator: drafts of which about half succeed come first."
        " 0: as they were drawn",
        unit="attempts",
        fixed=True,
        ge=0,
    )
    generator_max_new_tokens: int = _setting(
        1024, "Longest question of the Generator, its solution included", unit="tokens", fixed=True, ge=1
    )
    generator_learning_rate: float = _setting(1e-5, "Peak learning rate of the Generator", fixed=True, gt=0)
    generator_num_epochs: float = _setting(
        1.0, "Passes over the questions that a round has measured", unit="epochs", fixed=True, gt=0
    )
    generator_batch_size: int = _setting(
        16, "Questions in an update of the Generator, in each process", unit="questions", fixed=True, ge=1
    )
    generator_lora_rank: int = _setting(
        0, "Train LoRA adapters of this rank and merge them into the Generator. 0: all weights", fixed=True, ge=0
    )

    # Evaluation
    eval_attempts: int = _setting(8, "Sampled attempts at each held-out question", unit="attempts", fixed=True, ge=1)
    eval_files: CommaWords = _setting(
        (),
        "Files of questions that the last weights are scored on at the end, and `prosetting eval` where it is given"
        " none. They share no question with the other files and never enter a pool",
    )
    round_gate: Literal["off", "warn", "rollback", "stop"] = _setting(
        "warn",
        "What is done when a round's new weights do worse on VALIDATION_DATA_FILE than the old (docs/round_gate.md):"
        " nothing, a warning, a return to the ones before, or a pause",
    )

    # What happens when something fails
    auto_retry_enabled: bool = _setting(True, "Try a failed stage again")
    auto_max_retries: int = _setting(3, "Further tries of a failed stage", unit="tries", ge=0)
    auto_retry_delay: float = _setting(60.0, "Wait between tries of a stage", unit="seconds", ge=0)
    auto_continue_on_failure: bool = _setting(
        False, "When training fails for good: go on with the old weights instead of stopping"
    )
    checkpoint_interval: int = _setting(1, "Write checkpoint_round_X.json every so many rounds", unit="rounds", ge=1)

    @model_validator(mode="after")
    def _settings_agree(self) -> Settings:
        if self.teacher_max_cost is not None and None in (self.teacher_price_prompt, self.teacher_price_completion):
            raise ValueError("TEACHER_MAX_COST needs TEACHER_PRICE_PROMPT and TEACHER_PRICE_COMPLETION")
        losses, weights = len(self.trl_loss_type), len(self.trl_loss_weights)
        if losses not in (0, weights) and (losses, weights) != (1, 0):
            raise ValueError(f"TRL_LOSS_TYPE names {losses} losses, TRL_LOSS_WEIGHTS {weights}")
        if losses and self.trl_loss != "dpo":
            raise ValueError("TRL_LOSS and TRL_LOSS_TYPE each name the losses")
        if len(band := self.curriculum_band) != 2 or not 0 <= band[0] < band[1] <= 1:
            raise ValueError("CURRICULUM_BAND must be two shares, the first below the second")
        if self.solver_base_urls and self.solver_engine != "transformers":
            raise ValueError("SOLVER_BASE_URLS and SOLVER_ENGINE each say who samples")
        if self.generator_share and not self.generator_model_path:
            raise ValueError("GENERATOR_SHARE needs GENERATOR_MODEL_PATH, the model that writes that share")
        return self

    def fixed_values(self) -> dict[str, Any]:
        """The settings that decide what is computed, JSON-ready: a workspace is bound to them."""
        names = {name for name, field in type(self).model_fields.items() if _extra(field)["fixed"]}
        if not self.trains_with_verl:
            names = {name for name in names if not name.startswith("verl_")}
        if not self.generator_model_path:
            names = {name for name in names if not name.startswith("generator_")}
        return self.values_of(names)

    def values_of(self, names: Collection[str]) -> dict[str, Any]:
        """Some settings by name, JSON-ready."""
        return self.model_dump(mode="json", include=set(names))

    @property
    def makes_supervised_rows(self) -> bool:
        return self.all_correct_questions != "nothing"

    @property
    def trains(self) -> bool:
        """Whether any round trains."""
        return self.first_training_round <= self.total_rounds

    @property
    def trains_with_verl(self) -> bool:
        return self.training_framework != "TRL_DPO"

    def public_values(self) -> dict[str, Any]:
        """All settings, JSON-ready, keys of endpoints masked."""
        return self.model_dump(mode="json")


def _extra(field: Any) -> dict[str, Any]:
    return dict(field.json_schema_extra)


def env_name(field_name: str) -> str:
    return field_name.upper()


def flag_name(field_name: str) -> str:
    return "--" + field_name.replace("_", "-")


ENV_NAMES = tuple(env_name(name) for name in Settings.model_fields)
AGREEING = {
    "TRL_LOSS and": "TRL_LOSS=ipo with TRL_LOSS_TYPE empty",
    "TRL_LOSS_TYPE": "TRL_LOSS_TYPE=sigmoid,sft with TRL_LOSS_WEIGHTS=1,5",
    "CURRICULUM_BAND": "CURRICULUM_BAND=0,0.75",
    "TEACHER_MAX_COST": "TEACHER_MAX_COST=20 with TEACHER_PRICE_PROMPT=0.3 and TEACHER_PRICE_COMPLETION=1.2",
    "SOLVER_ENGINE": "SOLVER_ENGINE=vllm with SOLVER_BASE_URLS empty",
    "GENERATOR_SHARE": "GENERATOR_SHARE=0.5 with GENERATOR_MODEL_PATH=Qwen/Qwen3-8B",
}
"""Settings that must agree with others, each with an example of ones that do."""


def setting_unit(name: str) -> str:
    return str(_extra(Settings.model_fields[name])["unit"])


def example_value(name: str) -> str:
    """The default as one would type it."""
    default = Settings.model_fields[name].get_default()
    if isinstance(default, SecretStr) or default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(str(part) for part in default)
    return str(default).lower() if isinstance(default, bool) else str(default)


def reference_markdown() -> str:
    """The reference page of all settings (docs/settings.md)."""
    lines = [
        "# Settings",
        "",
        "Generated from `src/prosetting/config.py` by `python -m prosetting.config`. Set them in `.env`, in the",
        "environment, or as flags (`TOTAL_ROUNDS` is `--total-rounds`); flags win over the environment, and it over",
        "`.env`. **Fixed** settings decide what is computed: a workspace keeps the values it was made with.",
        "",
        "| Setting | Type | Default | Unit | Fixed | Meaning |",
        "|---|---|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        extra = _extra(field)
        kind = _type_name(name)
        default = f"`{example_value(name)}`" if example_value(name) else "empty"
        fixed = "yes" if extra["fixed"] else ""
        lines.append(f"| `{env_name(name)}` | {kind} | {default} | {extra['unit']} | {fixed} | {field.description} |")
    return "\n".join(lines) + "\n"


def _type_name(name: str) -> str:
    schema = Settings.model_json_schema()["properties"][name]
    options = schema.get("enum") or [schema["const"]] if "const" in schema or "enum" in schema else None
    if options:
        return " / ".join(f"`{option}`" for option in options)
    kinds = {schema.get("type")} | {part.get("type") for part in schema.get("anyOf", [])}
    word = next(iter(kinds - {None, "null"}))
    return {
        "array": "list with commas",
        "integer": "whole number",
        "number": "number",
        "boolean": "true / false",
    }.get(word, "path" if schema.get("format") == "path" or "file" in name or "_dir" in name else "text")


if __name__ == "__main__":
    print(reference_markdown(), end="")
