"""Our Ant against MuJoCo's multi-threaded rollout of the same body, alternating in one run.

    python benchmarks/mujoco_rollout.py --num-envs 128 1024 --threads 2

Both sides take sixteen substeps of 1/960 s per control step and hold one random action for each control step. Ours
includes observation, reward, termination and resets and is called once per control step, as training calls it.
MuJoCo's side gets everything that makes it faster: state only, no sensors, ten control steps per call, explicit Euler
integration with its fastest solver settings kept at their defaults, and no reset. The physics differ (constraint solver
there, penalty contacts and a mass matrix refreshed once per control step here), so this compares the time that an
experiment waits, not two implementations of one algorithm.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time

import mujoco
import numpy as np
import torch
from mujoco import rollout

from flowmbpo.envs import AntEnv
from flowmbpo.physics import ant

CONTROL_STEPS_PER_CALL = 10


def ant_mjcf() -> str:
    """The Ant of `flowmbpo.physics.ant` in MuJoCo's language: the same links, joints, masses and limits."""
    legs = []
    motors = []
    for leg, yaw in enumerate(ant.LEG_YAW, start=1):
        x, y = (round(math.copysign(1.0, f)) for f in (math.cos(yaw), math.sin(yaw)))
        sign = ant.ANKLE_SIGN[leg - 1]
        axis = f"{-y * sign} {x * sign} 0"  # ankle axis of the MJCF
        low, high = sorted(sign * angle for angle in (ant.ANKLE_LOWER, ant.ANKLE_UPPER))
        legs.append(f"""
        <geom type="capsule" size="0.08" fromto="0 0 0 {0.2 * x} {0.2 * y} 0"/>
        <body pos="{0.2 * x} {0.2 * y} 0">
          <joint name="hip_{leg}" axis="0 0 1" range="{-ant.HIP_LIMIT} {ant.HIP_LIMIT}"/>
          <geom type="capsule" size="0.08" fromto="0 0 0 {0.2 * x} {0.2 * y} 0"/>
          <body pos="{0.2 * x} {0.2 * y} 0">
            <joint name="ankle_{leg}" axis="{axis}" range="{low} {high}"/>
            <geom type="capsule" size="0.08" fromto="0 0 0 {0.4 * x} {0.4 * y} 0"/>
          </body>
        </body>""")
        motors += [f'<motor joint="{joint}_{leg}" gear="{ant.ACTION_STRENGTH}"/>' for joint in ("hip", "ankle")]
    return f"""
    <mujoco>
      <compiler angle="radian" inertiafromgeom="true"/>
      <option timestep="{ant.SUBSTEP}" gravity="0 0 -{ant.GRAVITY}" integrator="Euler"/>
      <default>
        <joint armature="{ant.ARMATURE}" damping="{ant.JOINT_DAMPING}" limited="true"/>
        <geom density="{ant.DENSITY}" contype="0" conaffinity="1" friction="{ant.CONTACT_MU} 0.005 0.0001"/>
        <motor ctrllimited="true" ctrlrange="-1 1"/>
      </default>
      <worldbody>
        <geom type="plane" size="50 50 1" contype="1" conaffinity="0"/>
        <body pos="0 0 {ant.START_HEIGHT}">
          <freejoint/>
          <geom type="sphere" size="{ant.TORSO_RADIUS}"/>{"".join(legs)}
        </body>
      </worldbody>
      <actuator>{"".join(motors)}</actuator>
    </mujoco>"""


class MujocoSide:
    """A batch of MuJoCo Ants advanced ten control steps at a time."""

    def __init__(self, num_envs: int, threads: int) -> None:
        self.model = mujoco.MjModel.from_xml_string(ant_mjcf())
        total = sum(body.mass for body in ant.links())
        assert abs(self.model.body_mass.sum() - total) < 1e-6 * total, "not the same body"
        self.data = [mujoco.MjData(self.model) for _ in range(threads)]
        self.pool = rollout.Rollout(nthread=threads)
        spec = mujoco.mjtState.mjSTATE_FULLPHYSICS
        size = mujoco.mj_stateSize(self.model, spec)
        first = self.data[0]
        first.qpos[7:] = ant.START_ANGLES
        state = np.empty(size)
        mujoco.mj_getState(self.model, first, state, spec)
        self.state = np.tile(state, (num_envs, 1))
        self.random = np.random.default_rng(0)
        substeps = CONTROL_STEPS_PER_CALL * ant.SUBSTEPS
        self.trajectory = np.zeros((num_envs, substeps, size))
        self.run()

    def run(self) -> None:
        actions = self.random.uniform(-1, 1, (len(self.state), CONTROL_STEPS_PER_CALL, ant.NUM_ACTIONS))
        control = np.repeat(actions, ant.SUBSTEPS, axis=1)
        self.pool.rollout(self.model, self.data, self.state, control, state=self.trajectory, skip_checks=False)
        self.state = self.trajectory[:, -1].copy()


class OurSide:
    """The same number of our Ants, one call per control step."""

    def __init__(self, num_envs: int) -> None:
        self.env = AntEnv(num_envs, seed=0)
        self.env.reset()
        self.generator = torch.Generator().manual_seed(0)
        self.run()

    def run(self) -> None:
        shape = (CONTROL_STEPS_PER_CALL, self.env.num_envs, ant.NUM_ACTIONS)
        actions = 2.0 * torch.rand(shape, generator=self.generator) - 1.0
        for action in actions:
            self.env.step(action)


def compare(num_envs: int, threads: int, rounds: int) -> dict[str, float]:
    """Control steps per second of both sides: medians over alternating rounds of similar length."""
    theirs, ours = MujocoSide(num_envs, threads), OurSide(num_envs)
    begin = time.perf_counter()
    ours.run()
    ours_once = time.perf_counter() - begin
    begin = time.perf_counter()
    theirs.run()
    repeats = max(1, round((time.perf_counter() - begin) / ours_once))  # equal shares of the machine's time
    speeds: dict[str, list[float]] = {"mujoco": [], "flowmbpo": []}
    for _ in range(rounds):
        for name, side, times in (("mujoco", theirs, 1), ("flowmbpo", ours, repeats)):
            begin = time.perf_counter()
            for _ in range(times):
                side.run()
            speeds[name].append(num_envs * CONTROL_STEPS_PER_CALL * times / (time.perf_counter() - begin))
    mujoco_speed, our_speed = (statistics.median(speeds[name]) for name in ("mujoco", "flowmbpo"))
    ratios = [b / a for a, b in zip(speeds["mujoco"], speeds["flowmbpo"], strict=True)]
    return {
        "num_envs": num_envs,
        "threads": threads,
        "mujoco_steps_per_second": mujoco_speed,
        "flowmbpo_steps_per_second": our_speed,
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-envs", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for num_envs in arguments.num_envs:
        print(json.dumps(compare(num_envs, arguments.threads, arguments.rounds)))


if __name__ == "__main__":
    main()
