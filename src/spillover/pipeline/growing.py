"""Whether answers or verdicts that a provider failed to give were tried again since a report."""

from spillover.hashes import beside
from spillover.pipeline.parts import parts
from spillover.pipeline.plan import Plan
from spillover.spec import short_hash
from spillover.store import Lab


def tried(plan: Plan, lab: Lab) -> str:
    """A short hash of all parts of answers and verdicts, another one once any was made anew: clocks may go back."""
    folders = [cell.folder(lab) for cell in plan.cells]
    folders += [plan.verdict_folder(lab, rubric) for rubric in plan.rubrics.values()]
    found = [(part.name, beside(part)) for folder in folders for part in parts(folder)]
    return short_hash([(name, told.read_text(encoding="utf-8") if told.is_file() else "") for name, told in found])
