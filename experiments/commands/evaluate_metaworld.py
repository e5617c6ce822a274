"""`maml-rl evaluate-metaworld`: success rate on a Meta-World benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from maml_rl.experiments.commands.computing import computing
from maml_rl.experiments.commands.options import NO_OTHERS, GivenTrust, parse
from maml_rl.experiments.runs.metaworld_protocol import Protocol, evaluate_metaworld
from maml_rl.experiments.runs.trust import check_runs


@dataclass(frozen=True)
class MetaWorldOptions:
    """Measures the success rate on a Meta-World benchmark's test tasks, with the benchmark's own protocol.

    examples:
      maml-rl evaluate-metaworld runs/metaworld-ml10
      maml-rl evaluate-metaworld runs/metaworld-ml10 --json      for a program
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run, or hub:owner/name on the Hugging Face Hub."""
    protocol: Annotated[Protocol, tyro.conf.OmitArgPrefixes] = field(default_factory=Protocol)
    json: bool = False
    """Print one JSON object and nothing else."""
    trust: GivenTrust = NO_OTHERS


def run(arguments: Sequence[str]) -> None:
    """Evaluates a run of a Meta-World benchmark, and prints a table."""
    options = parse(MetaWorldOptions, arguments, "maml-rl evaluate-metaworld")
    check_runs([options.run], options.trust.trust_module)
    with computing(options.json) as show:
        evaluation = evaluate_metaworld(options.run, options.protocol)
        show(evaluation.to_json())
    if options.json:
        return
    print(f"success rate on {options.protocol.goals} test goals of each manipulation, before and after adaptation\n")
    print(evaluation.table())
