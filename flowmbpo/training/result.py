"""What a run came to, as `flowmbpo run --json` prints it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from flowmbpo.data_types import Document


@dataclass(frozen=True)
class RunResult:
    """Rewards are real: means over the last 100 finished episodes; the peak is the highest logged one."""

    run_id: str
    name: str
    seed: int
    status: str  # FINISHED, FAILED or KILLED
    epochs: int
    env_steps: int
    peak_reward: float | None
    final_reward: float | None
    eval_reward: float | None  # best evaluated checkpoint, deterministic policy
    wall_seconds: float
    checkpoints: list[str] = field(default_factory=list)
    directory: str = ""
    exit_code: int = 0
    message: str = ""

    def document(self) -> Document:
        return asdict(self)
