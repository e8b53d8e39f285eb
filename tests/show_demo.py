"""The last step of `make demo`: check what the run left and say where it is."""

import json
import sys
from pathlib import Path

from spectramind_nb.runs.submission import validate


def main(result: Path) -> None:
    run = json.loads(result.read_text())
    folder = Path(run["dir"])
    print(f"\nrun {run['id']}: {run['outcome']}")
    for name in ("val/score", "val/score_fit", "val/score_mean"):
        meaning = {"val/score": "trained model", "val/score_fit": "the fit's own depths",
                   "val/score_mean": "mean of the training planets"}[name]
        print(f"  {name:15} {run['metrics'][name]:.3f}  {meaning}")
    print(f"  {validate(folder / 'submission.csv')}")
    pictures = sorted(folder.glob("figures/*.png"))
    if len(pictures) < 2:
        sys.exit(f"the run left no pictures in {folder / 'figures'}")
    for path in (folder / "submission.csv", *pictures, *folder.glob("report.html"), result.parent / "train.ipynb"):
        print(f"  {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
