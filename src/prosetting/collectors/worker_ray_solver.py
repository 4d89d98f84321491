"""The child process that samples on a Ray cluster: a driver that spreads requests over replicas.

It speaks the sampling child's protocol (sampler_protocol.py). Who lost a node, or a replica, is Ray's to tell and
Ray's to replace (`max_restarts=-1`); what was in flight there goes to another replica at once. An attempt is a
function of its seed, so it is the same wherever it is drawn, and a row is told once.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby

import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from prosetting.collectors.ray_replica import Message, Replica, SamplingFailed
from prosetting.collectors.sampler_protocol import Requests, in_a_line, keep_stdout_for_protocol
from prosetting.core import children
from prosetting.core.ray_cluster import Share, room_for
from prosetting.core.ray_driver import join, live_nodes

POLL_S = 0.05
LOSSES = (RayActorError, ObjectLostError)
"""A replica's end, and a long reply that was still on its node."""
MOST_LOSSES = 5
"""Replicas that one request may end before it is taken for the cause."""


class SolverLost(Exception):
    """Why no more attempts can be drawn, in words."""


@dataclass(slots=True)
class Group:
    """Attempts at one prompt, drawn by one replica, which reads the prompt once."""

    requests: list[Message]
    losses: int = 0


@dataclass(eq=False, slots=True)
class Place:
    """A replica as the driver sees it: `placed` once a node holds it, `up` once it has loaded the checkpoint. `load`:
    its attempts in flight; `losses`: how often it was lost since it last drew one."""

    number: int
    actor: ActorHandle
    load: int = 0
    placed: bool = False
    up: bool = False
    losses: int = 0


@dataclass(slots=True)
class Fleet:
    """The replicas, and who draws what. `slots`: attempts that a replica draws at once."""

    places: list[Place]
    slots: int
    node_timeout_s: float
    say: Callable[[Message], None]
    _call: int = 0
    _params: Message = field(default_factory=dict)
    _waiting: deque[Group] = field(default_factory=deque)
    _in_flight: dict[ray.ObjectRef, tuple[Place, Group]] = field(default_factory=dict)
    _joining: dict[ray.ObjectRef, Place] = field(default_factory=dict)
    _placed_at: float = field(default_factory=time.monotonic)
    _told: bool = False

    def serve(self, requests: Requests) -> None:
        """Tell rows until no more requests can come, which raises EOFError. Raises SolverLost."""
        for place in self.places:
            self._await(place)
        while True:
            idle = not (self._waiting or self._in_flight or self._joining)
            self._take(list(requests.here(wait=idle)))
            self._hand_out()
            self._collect()
            self._check_time()

    def _take(self, messages: list[Message]) -> None:
        for prompt, adjacent in groupby(messages, key=lambda message: message.get("prompt")):
            if prompt is not None:
                self._waiting.append(Group(list(adjacent)))
                continue
            for message in adjacent:
                # Breaks off the call before: what is in flight of it is nobody's.
                self._call, self._params = self._call + 1, message["params"]
                self._waiting.clear()
                self._in_flight.clear()
                for place in self.places:
                    place.load = 0

    def _hand_out(self) -> None:
        """To whoever has most room; about two batches a replica, so that none waits for its next attempt."""
        up = [place for place in self.places if place.up]
        while self._waiting and up:
            place = min(up, key=lambda each: each.load)
            if place.load >= 2 * self.slots:
                return
            group = self._waiting.popleft()
            place.load += len(group.requests)
            self._in_flight[place.actor.draw.remote(self._call, self._params, group.requests)] = place, group

    def _collect(self) -> None:
        asked = [*self._joining, *self._in_flight]
        if not asked:
            return
        ready, _ = ray.wait(asked, timeout=POLL_S)
        if len(asked) > 1:
            ready, _ = ray.wait(asked, num_returns=len(asked), timeout=0)
        for ref in ready:
            if place := self._joining.pop(ref, None):
                self._joined(place, ref)
            elif (flight := self._in_flight.pop(ref, None)) is not None:
                self._drawn(*flight, ref)

    def _await(self, place: Place) -> None:
        """Ray retries this call for as long as the actor is on its way: without a node, for ever."""
        place.placed = place.up = False
        self._joining[place.actor.placed.options(max_task_retries=-1).remote()] = place

    def _joined(self, place: Place, ref: ray.ObjectRef) -> None:
        try:
            facts = ray.get(ref)
        except LOSSES as error:
            return self._lost(place, error)
        if not place.placed:
            place.placed = True
            self._joining[place.actor.facts.remote()] = place
            return
        place.up = True
        if not self._told:
            self.say({**facts, "replicas": len(self.places)})
        elif place.losses:
            self.say({"note": f"the Solver's replica {place.number} is back"})
        self._told = True

    def _drawn(self, place: Place, group: Group, ref: ray.ObjectRef) -> None:
        place.load -= len(group.requests)
        try:
            rows = ray.get(ref)
        except LOSSES as error:
            self._lost(place, error)
            group.losses += 1
            if group.losses >= MOST_LOSSES:
                raise SolverLost(f"{MOST_LOSSES} replicas ended while they drew the same attempts: {error}") from None
            self._waiting.appendleft(group)
            return
        place.losses = 0
        self.say({"rows": rows})

    def _lost(self, place: Place, error: RayActorError | ObjectLostError) -> None:
        print(f"replica {place.number} is lost: {error}", file=sys.stderr)
        if place in self._joining.values():
            return  # another of its calls has told already
        place.losses += 1
        if place.losses >= MOST_LOSSES:
            raise SolverLost(f"replica {place.number} was lost {MOST_LOSSES} times without an attempt drawn: {error}")
        self._await(place)
        up = sum(each.up for each in self.places)
        what = f"the Solver's replica {place.number} of {len(self.places)} is lost"
        self.say(
            {"note": f"{what}: {up} go on with what it had in flight, and Ray starts it again where there is room"}
        )

    def _check_time(self) -> None:
        nothing_to_do = self._told and not self._waiting
        if nothing_to_do or any(place.placed for place in self.places):
            self._placed_at = time.monotonic()
        elif time.monotonic() - self._placed_at > self.node_timeout_s:
            raise SolverLost(
                f"none of its {len(self.places)} replicas on Ray had a node for {self.node_timeout_s:.0f} s"
                " (RAY_NODE_TIMEOUT)"
            )


def start_replicas(arguments: argparse.Namespace) -> list[Place]:
    """One actor a replica, spread over the nodes. With no number asked for, as many as there is room for."""
    share = Share(arguments.gpus, arguments.cpus)
    count = arguments.replicas or max(1, room_for(share, list(live_nodes().values())))
    env = {"TOKENIZERS_PARALLELISM": "false"}
    if arguments.model.startswith("/"):
        env["HF_HUB_OFFLINE"] = "1"
    actor = ray.remote(Replica).options(
        num_gpus=share.gpus,
        num_cpus=share.cpus,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=1000,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": env},
    )
    return [
        Place(number, actor.remote(arguments.model, arguments.slots, arguments.trust_remote_code))
        for number in range(1, count + 1)
    ]


def main() -> int:
    """Serve until stdin closes. 0: asked to end; 1: lost."""
    children.end_with_the_run()
    say = keep_stdout_for_protocol()
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--replicas", type=int, required=True)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--node-timeout", type=float, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--trust-remote-code", action="store_true")
    arguments = parser.parse_args()
    try:
        join(arguments.address)
        Fleet(start_replicas(arguments), arguments.slots, arguments.node_timeout, say).serve(Requests.of(sys.stdin))
    except EOFError:
        return 0
    except RayTaskError as error:  # a replica's last word
        traceback.print_exc()
        say({"error": str(error.cause) if isinstance(error.cause, SamplingFailed) else in_a_line(error.cause)})
    except Exception as error:
        traceback.print_exc()
        say({"error": str(error) if isinstance(error, SolverLost) else in_a_line(error)})
    return 1


if __name__ == "__main__":
    sys.exit(main())
