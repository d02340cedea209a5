"""`spillover data push`: a dataset to the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from spillover.cli.told import told_plainly
from spillover.lazy import lazy

pushing = lazy("spillover.construct.push")
displays = lazy("spillover.display")


@told_plainly
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset's folder, as `data build` writes it.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the hub; made where there is none.")],
    public: Annotated[bool, typer.Option("--public", help="Everybody may read it; private if not given.")] = False,
    branch: Annotated[str, typer.Option("--branch", help="Made from main where there is none.")] = "main",
    replace: Annotated[bool, typer.Option("--replace", help="Over another dataset of spillover's.")] = False,
) -> None:
    """Upload a dataset's rows, origins, manifest and card, in one commit, and check what arrived.

    The key is the hub's own: HF_TOKEN, or what `hf auth login` has kept.
    """
    order = pushing.PushOrder(folder, repo, public=public, branch=branch, replace=replace)
    pushed = pushing.push_dataset(order, displays.Display().say)
    what = f"{len(pushed.files)} files" if pushed.is_new else "everything was there already"
    print(f"{pushed.url}: {what}, commit {pushed.commit[:12]}, {pushed.visibility}.")
