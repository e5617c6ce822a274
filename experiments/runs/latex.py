"""A comparison as a table for LaTeX, with the package booktabs."""

import re
from collections.abc import Iterator

from maml_rl.experiments.runs.comparison_files import Comparison, Estimate, comparison_heading, paper_cells
from maml_rl.learner import QUANTITIES, Quantity

_ESCAPED = {**{c: f"\\{c}" for c in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}"} | {
    "^": r"\textasciicircum{}"
}


def latex_table(comparison: Comparison) -> str:
    """Mean of each method by gradient step with half of its 95 % interval, and the paper's mean below.

    It needs `\\usepackage{booktabs}`. Its comments say what the numbers are, for the caption.
    """
    steps = range(comparison.gradient_steps + 1)
    return "\n".join(
        [
            f"% {comparison_heading(comparison)}",
            "% by number of gradient steps; +/- half of the 95 % interval, over seeds and tasks from three seeds on,",
            "% and over tasks alone for fewer. Needs \\usepackage{booktabs}.",
            rf"\begin{{tabular}}{{lr{'r' * len(steps)}}}",
            r"\toprule",
            rf" & seeds & {' & '.join(map(str, steps))} \\",
            *_rows(comparison),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """A text with LaTeX's special characters escaped."""
    return re.sub(r"[&%$#_{}\\~^]", lambda found: _ESCAPED[found[0]], text)


def _rows(comparison: Comparison) -> Iterator[str]:
    quantity, columns = QUANTITIES[comparison.quantity], comparison.gradient_steps + 3
    for condition in comparison.conditions:
        yield r"\midrule"
        if condition:
            yield rf"\multicolumn{{{columns}}}{{l}}{{{escaped(condition)}}} \\"
        for method in comparison.methods:
            curve = method.curve(condition)
            cells = [_cell(estimate, quantity) for estimate in curve.mean]
            cells += ["--"] * (comparison.gradient_steps + 1 - len(cells))
            yield rf"{escaped(method.label)} & {len(method.runs)} & {' & '.join(cells)} \\"
            if curve.paper:
                paper = ["--" if cell == "-" else f"${cell}$" for cell in paper_cells(comparison, curve)]
                yield rf"\quad paper & & {' & '.join(paper)} \\"


def _cell(estimate: Estimate, quantity: Quantity) -> str:
    if estimate.value is None:
        return "--"
    if estimate.low is None or estimate.high is None:
        return f"${quantity.text(estimate.value)}$"
    return rf"${quantity.text(estimate.value)} \pm {quantity.text((estimate.high - estimate.low) / 2)}$"
