"""What a person decides: an experiment, as frozen specs read from YAML. Unknown keys are refused.

The defaults are the paper's settings (Betley et al. 2025, arXiv 2502.17424, appendix C.5 for open models). An
experiment's `miniature` section says what the embedded million-weight base needs instead, and counts for it alone.
"""

from spillover.spec.asking import Benchmark, Chat, Choices, Requests, Sampling, Suite
from spillover.spec.experiment import REMEDY, Experiment, MiniatureSettings, parse_experiment
from spillover.spec.figure import LEAST_COHERENT, FigureSpec, Panel, Thresholds
from spillover.spec.groups import Comparison, Group, Made
from spillover.spec.loading import load_experiment, shipped_experiments
from spillover.spec.training import PROJECTIONS, Hosted, Machine, Training
from spillover.spec.values import (
    API,
    AUTO,
    MINIATURE,
    PRETRAINED,
    Count,
    Name,
    NotNegative,
    Positive,
    Spec,
    first_wrong,
    short_hash,
)

__all__ = [
    "API",
    "AUTO",
    "LEAST_COHERENT",
    "MINIATURE",
    "PRETRAINED",
    "PROJECTIONS",
    "REMEDY",
    "Benchmark",
    "Chat",
    "Choices",
    "Comparison",
    "Count",
    "Experiment",
    "FigureSpec",
    "Group",
    "Hosted",
    "Machine",
    "Made",
    "MiniatureSettings",
    "Name",
    "NotNegative",
    "Panel",
    "Positive",
    "Requests",
    "Sampling",
    "Spec",
    "Suite",
    "Thresholds",
    "Training",
    "first_wrong",
    "load_experiment",
    "parse_experiment",
    "shipped_experiments",
    "short_hash",
]
