"""A SUBSTITUTE for verl's GPU parts, for tests only: a CPU platform and a transformers rollout.

With it the real trainer of verl (hydra, Ray, TransferQueue, FSDP2, PPO and GRPO, checkpoints) runs without a GPU.
It stands in for CUDA, NCCL, vLLM and SGLang: nothing that a test does with it says anything about those.

Loaded in every process of verl through VERL_PLATFORM=cpu and VERL_USE_EXTERNAL_MODULES=verl_on_cpu, with this folder
on PYTHONPATH; VERL_ENGINE_DEVICE=cuda picks verl's FSDP engine, which is registered for cuda and npu only.
"""

from __future__ import annotations

import asyncio
import types
from contextlib import nullcontext

import ray
import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry
from verl.workers.rollout import base as rollout_base
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

NAME = "hf_cpu"


class _CpuDevice(types.ModuleType):
    """torch.cpu with the memory figures and random state that trainers ask a device for."""

    def __getattr__(self, name: str):
        return getattr(torch.cpu, name)

    def memory_allocated(self, *args) -> int:
        return 0

    max_memory_allocated = memory_reserved = max_memory_reserved = memory_allocated

    def mem_get_info(self, *args) -> tuple[int, int]:
        return 2**33, 2**33

    def get_device_name(self, *args) -> str:
        return "CPU"

    def empty_cache(self) -> None: ...

    def reset_peak_memory_stats(self, *args) -> None: ...

    def get_rng_state(self) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)


_DEVICE = _CpuDevice("cpu_device")


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    device_name = property(lambda self: "cpu")
    vendor_name = property(lambda self: "cpu")
    device_module = property(lambda self: _DEVICE)

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index) -> None: ...

    def synchronize(self, device_index=None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def nvtx_range(self, msg: str):
        return nullcontext()

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"  # a logical one: ray_init.num_gpus says how many

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


_init_process_group = torch.distributed.init_process_group


def _init_on_gloo(backend=None, *args, **kwargs):
    """verl names a backend for the CPU and one for the device; here they are the same device."""
    return _init_process_group("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)


torch.distributed.init_process_group = _init_on_gloo
# verl offloads the reference policy to pinned memory, which only an accelerator has.
torch.Tensor.pin_memory = lambda self, *args, **kwargs: self


_load_critic = AutoModelForTokenClassification.from_pretrained


def _load_critic_without_flash_attention(*args, **kwargs):
    """verl asks for FlashAttention 2, whatever its configuration says, and that needs CUDA."""
    return _load_critic(*args, **kwargs | {"attn_implementation": "sdpa"})


AutoModelForTokenClassification.from_pretrained = _load_critic_without_flash_attention


class HFCpuServer:
    """Samples one request at a time with plain transformers, in float32."""

    def __init__(self, model_path: str, response_length: int) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
        self._response_length = response_length
        self._global_steps: int | None = None
        self._lock = asyncio.Lock()

    async def generate(self, prompt_ids, sampling_params, request_id, **ignored) -> TokenOutput:
        async with self._lock:
            tokens = await asyncio.to_thread(self._draw, list(prompt_ids), sampling_params)
        stopped = tokens[-1] in self._ends()
        return TokenOutput(
            token_ids=tokens,
            stop_reason="completed" if stopped else "length",
            extra_fields={"global_steps": self._global_steps},
        )

    def _ends(self) -> list[int]:
        ends = self._model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [ends]

    @torch.no_grad()
    def _draw(self, prompt_ids: list[int], sampling_params: dict) -> list[int]:
        ids = torch.tensor([prompt_ids])
        out = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=sampling_params["temperature"],
            top_p=sampling_params["top_p"],
            top_k=0,
            max_new_tokens=self._response_length,
            pad_token_id=self._ends()[0],
        )
        return out[0, len(prompt_ids) :].tolist()

    async def load(self, weights: dict[str, torch.Tensor], global_steps: int | None) -> None:
        async with self._lock:
            missing, unexpected = self._model.load_state_dict(weights, strict=False)
            tied = {"lm_head.weight"} if self._model.config.tie_word_embeddings else set()
            assert set(missing) <= tied, missing
            assert not unexpected, unexpected
            self._global_steps = global_steps

    async def nothing(self, *args, **kwargs) -> None:
        """There is no memory to give back and no cache to drop."""

    wake_up = sleep = abort_all_requests = resume_generation = clear_kv_cache = nothing
    release_kv_cache = resume_kv_cache = start_profile = stop_profile = nothing


class HFCpuRollout(rollout_base.BaseRollout):
    """The trainer's side: hands its weights to the server of its replica."""

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    async def update_weights(self, weights, global_steps: int | None = None, **ignored) -> None:
        from verl.workers.rollout.utils import ensure_async_iterator

        # All ranks gather each tensor; rank 0 of the replica (every rank: tensor parallel is 1) sends them.
        full = {name: tensor.detach().float().cpu().clone() async for name, tensor in ensure_async_iterator(weights)}
        await ray.get_actor(f"{NAME}_server_{torch.distributed.get_rank()}").load.remote(full, global_steps)


class HFCpuReplica(RolloutReplica):
    """One server actor for each training process."""

    async def launch_servers(self) -> None:
        server = ray.remote(HFCpuServer).options(name=f"{NAME}_server_{self.replica_rank}", max_concurrency=1000)
        handle = server.remote(self.model_config.path, self.config.response_length)
        self.servers = [handle]
        self._server_handle, self._server_address = handle, f"{NAME}-{self.replica_rank}"


rollout_base._ROLLOUT_REGISTRY[(NAME, "async")] = f"{__name__}.HFCpuRollout"
RolloutReplicaRegistry.register(NAME, lambda: HFCpuReplica)
