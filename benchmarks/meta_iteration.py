"""Time and memory of whole meta-iterations of `half-cheetah-dir`: 40 tasks x 20 episodes x 200 steps, twice.

`benchmarks/scaling.py` varies the number of tasks and episodes.
"""

import argparse
import json
import resource
import statistics
import sys
from dataclasses import replace

import torch

from maml_rl.config import TrustRegion
from maml_rl.experiments.presets import with_rule
from maml_rl.experiments.presets.rl_presets import RL_PRESETS
from maml_rl.initial import initial_policy
from maml_rl.meta_rl import initial_state, meta_iteration
from maml_rl.parallel import threads_for, usable_device
from maml_rl.tasks import vectorize


def peak_megabytes() -> float:
    """Largest resident size of this process so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--iterations", type=int, default=5, help="iterations measured, after one to warm up (5)")
    parser.add_argument("--tasks", type=int, default=40, help="meta-batch size (40)")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of a task, before and after adaptation (20)")
    parser.add_argument(
        "--curvature-fraction",
        type=float,
        help="share of the steps for the curvature (the preset's; 1 leaves nothing out)",
    )
    parser.add_argument("--device", default="cpu", help="device of policy and update (cpu)")
    parser.add_argument(
        "--rule",
        choices=["adam", "sgd", "promp"],
        help="another rule of the meta-step, measured in turn with the trust region; prints figures and ratio",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = usable_device(arguments.device)
    config = RL_PRESETS["half-cheetah-dir"].config
    step = config.meta.step
    assert isinstance(step, TrustRegion)
    fraction = arguments.curvature_fraction or step.curvature_fraction
    region = replace(step, curvature_fraction=fraction, hessian_fraction=fraction)
    meta = replace(config.meta, meta_batch_size=arguments.tasks, episodes=arguments.episodes, step=region)
    envs = vectorize(config.env_id, meta.meta_batch_size * meta.episodes)
    policy = initial_policy(envs, config.network, meta, seed=0).to(device)
    chosen = {"trust-region": meta}
    if arguments.rule:
        chosen[arguments.rule] = with_rule(replace(config, meta=meta), arguments.rule).meta
    states, threads = (
        {rule: initial_state(policy, of_rule) for rule, of_rule in chosen.items()},
        threads_for(device, None),
    )
    seconds: dict[str, list[dict[str, float]]] = {rule: [] for rule in chosen}
    peaks = []
    for _ in range(arguments.iterations + 1):
        for rule, of_rule in chosen.items():
            states[rule], metrics, _ = meta_iteration(policy, states[rule], envs, of_rule, 0, threads)
            seconds[rule].append(metrics)
        peaks.append(peak_megabytes())
    report(arguments, seconds, fraction, peaks)


def report(
    arguments: argparse.Namespace, seconds: dict[str, list[dict[str, float]]], fraction: float, peaks: list[float]
) -> None:
    """Prints medians of all iterations but the first."""
    region, measured = seconds["trust-region"][1:], seconds[arguments.rule or "trust-region"][1:]
    sampling, update = ([m[f"time/{part}_seconds"] for m in measured] for part in ("sampling", "update"))
    result = {
        "sampling_seconds": statistics.median(sampling),
        "update_seconds": statistics.median(update),
        "update_to_sampling": statistics.median(u / s for u, s in zip(update, sampling, strict=True)),
        "curvature_fraction": fraction,
        "peak_mb": peaks[-1],
        "peak_mb_after_first_iteration": peaks[0],
    }
    if arguments.rule:
        ratios = [u / m["time/update_seconds"] for u, m in zip(update, region, strict=True)]
        result["update_to_trust_region"] = statistics.median(ratios)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"sampling {result['sampling_seconds']:.2f} s, update {result['update_seconds']:.2f} s an iteration")
    print(f"update / sampling: {result['update_to_sampling']:.2f}")
    if arguments.rule:
        print(f"update / that of the trust region: {result['update_to_trust_region']:.2f}")
    print(f"peak memory: {result['peak_mb']:,.0f} MB (after one iteration {peaks[0]:,.0f} MB)")


if __name__ == "__main__":
    main()
