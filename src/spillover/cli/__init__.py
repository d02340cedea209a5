"""The command line: it reads what a person wants, hands it on, and shows what came out."""

import os

# Torch's threads wait for each other some thousand times a second. Asleep they wait as fast as busy; but a busy wait
# takes the core from the thread that is waited for where anything else runs: asking was up to ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from spillover.cli.main import app

__all__ = ["app"]
