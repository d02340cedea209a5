"""Which libraries a new process has loaded by the time it has done something."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "peft", "polars", "numpy", "scipy", "matplotlib", "bandit", "inspect_ai")
HEAVY += ("inspect_evals", "huggingface_hub", "openai", "tinker")
"""What takes long to load."""
TELLS = f"import sys\nprint('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
RUNS = "import sys\nfrom spillover.cli import app\napp(sys.argv[1:], standalone_mode=False)"


def loaded_after(code, *arguments):
    """What was said, and the heavy libraries that are loaded after some code."""
    command = [sys.executable, "-c", f"{code}\n{TELLS}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    said, _, loaded = done.stdout.rpartition("loaded:")
    return said, set(loaded.split())


def loaded_by(*arguments):
    """As `loaded_after`, for a command."""
    return loaded_after(RUNS, *arguments)
