"""How time and memory of a meta-iteration grow with the number of tasks, and of episodes per task.

    python benchmarks/scaling.py --picture docs/pictures/scaling.png

Each size is measured in new processes (`benchmarks/meta_iteration.py`), all sizes in turn. The figures are the median
time of an iteration and the peak of memory, over the rounds. Straight lines, with a fixed part and a part per task or
episode, are fitted by least squares of the relative error. The largest distance of a size from its line is printed.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

TASKS, EPISODES = (10, 20, 40, 80, 160), (10, 20, 40)  # of 20 episodes; of 40 tasks
Size = tuple[int, int]  # tasks, episodes


def measure(size: Size, iterations: int) -> dict[str, Any]:
    """What `meta_iteration.py` measures."""
    script = Path(__file__).with_name("meta_iteration.py")
    command = [sys.executable, str(script), "--json", "--iterations", str(iterations)]
    tasks, episodes = size
    done = subprocess.run(
        [*command, "--tasks", str(tasks), "--episodes", str(episodes)], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Fixed part and slope of the line through positive values, and the largest relative distance from it."""
    design = np.stack([1 / y, x / y], axis=1)
    (fixed, slope), *_ = np.linalg.lstsq(design, np.ones(len(x)), rcond=None)
    return float(fixed), float(slope), float(np.abs((fixed + slope * x) / y - 1).max())


def draw(results: dict[str, dict[str, list[float]]], out: Path) -> None:
    """A picture of seconds and memory by tasks and by episodes, with the fitted lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, (name, of_sizes) in zip(figure.subplots(1, 2), results.items(), strict=True):
        x = np.array(of_sizes["size"])
        memory = axes.twinx()
        for where, quantity, colour, unit in ((axes, "seconds", "C0", "s"), (memory, "megabytes", "C1", "MB")):
            y = np.array(of_sizes[quantity])
            fixed, slope, _ = line(x, y)
            where.plot(x, y, "o", color=colour)
            where.plot([0, x[-1]], [fixed, fixed + slope * x[-1]], color=colour, lw=1)
            where.set_ylim(0)
            where.set_ylabel(f"{quantity if unit == 's' else 'peak memory'} ({unit})", color=colour)
        axes.set_xlim(0)
        axes.set_xlabel(f"{name} ({'20 episodes each' if name == 'tasks' else '40 tasks'})")
    figure.savefig(out, dpi=150)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes for each size (3)")
    parser.add_argument("--iterations", type=int, default=2, help="iterations of each, after one to warm up (2)")
    parser.add_argument("--picture", type=Path, help="where to draw it")
    arguments = parser.parse_args()
    sizes = [(tasks, 20) for tasks in TASKS] + [(40, episodes) for episodes in EPISODES if episodes != 20]
    found: dict[Size, list[dict[str, Any]]] = {size: [] for size in sizes}
    for done in range(arguments.rounds):
        for size in sizes:
            found[size].append(measure(size, arguments.iterations))
        print(f"round {done + 1} of {arguments.rounds}", file=sys.stderr)

    def median(size: Size, *names: str) -> float:
        return statistics.median(float(sum(each[name] for name in names)) for each in found[size])

    results = {}
    for name, of_name in (("tasks", [(m, 20) for m in TASKS]), ("episodes", [(40, k) for k in EPISODES])):
        values = {
            "size": [float(size[name == "episodes"]) for size in of_name],
            "seconds": [median(size, "sampling_seconds", "update_seconds") for size in of_name],
            "megabytes": [median(size, "peak_mb") for size in of_name],
        }
        results[name] = values
        print(f"\n{name:>8}  seconds  peak MB")
        for row in zip(*values.values(), strict=True):
            print("{:8.0f}  {:7.2f}  {:7.0f}".format(*row))
        for quantity in ("seconds", "megabytes"):
            fixed, slope, distance = line(np.array(values["size"]), np.array(values[quantity]))
            each = f"{slope:.3g} for each of the {name}"
            print(f"{quantity}: {fixed:.3g} and {each}, at most {distance:.1%} from it")
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "mujoco", "numpy"))
    print(f"\n{platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions}")
    if arguments.picture:
        draw(results, arguments.picture)


if __name__ == "__main__":
    main()
