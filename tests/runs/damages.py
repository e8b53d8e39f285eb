"""Random small damages to a data set, and what becomes of the planets that have none.

    python tests/runs/damages.py --count 100 --seed 0 --out /tmp/damages

simulates 8 training and 4 test planets, applies to a copy of them (hard links: what is not damaged is not copied) one to three of the
damages below, trains on it for an epoch, and looks at what a user would see: the exit code, one sentence, and how good the predictions
for the undamaged test planets are. With --job it is the submission job that runs, which must leave a valid file whatever happens.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import polars as pl

INSTRUMENTS = ("FGS1", "AIRS-CH0")
PRODUCTS = ("dark", "dead", "flat", "read", "linear_corr")
TABLES = ("train.csv", "train.csv", "train_star_info.csv", "test_star_info.csv", "wavelengths.csv", "adc_info.csv", "sample_submission.csv")
EVERY = "every planet"  # touched by a damage that all visits share
Touched = set  # of (split, planet), or EVERY


def linked(root: Path, out: Path) -> Path:
    """The data set again, its files shared: stores know them by their content. A damage replaces files and never writes into one."""
    shutil.copytree(root, out, copy_function=os.link)
    return out


def planets(root: Path, split: str) -> list[str]:
    """The folders of a split that still bear a number."""
    return sorted(path.name for path in (root / split).iterdir() if path.name.isdecimal() and path.is_dir() and any(path.iterdir()))


def put(path: Path, content: bytes) -> None:
    """Replace a file, never its other links."""
    path.unlink()
    path.write_bytes(content)


# -- tables: each changes the text of a CSV table ----------------------------------------------------------------------


def _cell(change: Callable[[random.Random, str], str]) -> Callable:
    def damage(chance: random.Random, rows: list[list[str]]) -> list[list[str]]:
        row, column = chance.randrange(1, len(rows)), chance.randrange(1, len(rows[0]))
        rows[row][column] = change(chance, rows[row][column])
        return rows

    damage.where = "cell"
    return damage


def _scaled(chance: random.Random, cell: str) -> str:
    return repr(float(cell or 1) * chance.choice([1e-6, 1e-3, 1 / 60, 60, 86400, 1e3, 1e6]))


def _column(change: Callable[[random.Random, list[list[str]], int], None]) -> Callable:
    def damage(chance: random.Random, rows: list[list[str]]) -> list[list[str]]:
        change(chance, rows, chance.randrange(len(rows[0])))
        return rows

    return damage


def _drop_column(chance, rows, k):
    for row in rows:
        del row[k]


def _double_column(chance, rows, k):
    for row in rows:
        row.append(row[k])


def _rename_column(chance, rows, k):
    rows[0][k] = chance.choice(["", "Unnamed: 0", rows[0][k].upper() + "_", "id"])


def _swap_columns(chance, rows, k):
    j = chance.randrange(len(rows[0]))
    rows[0][k], rows[0][j] = rows[0][j], rows[0][k]


def _index_column(chance, rows, k):
    for number, row in enumerate(rows):
        row.insert(0, "" if number == 0 else str(number - 1))


def _row(change: Callable[[random.Random, list[list[str]], int], None]) -> Callable:
    def damage(chance: random.Random, rows: list[list[str]]) -> list[list[str]]:
        change(chance, rows, chance.randrange(1, len(rows)))
        return rows

    return damage


def _contradict(chance, rows, k):
    rows.append([*rows[k][:-1], _scaled(chance, rows[k][-1])])


def _number(change: Callable[[str], str]) -> Callable:
    def damage(chance, rows, k):
        rows[k][0] = change(rows[k][0])

    return _row(damage)


TABLE_DAMAGES: dict[str, Callable] = {
    "an empty cell": _cell(lambda chance, cell: ""),
    "NaN in a cell": _cell(lambda chance, cell: "nan"),
    "inf in a cell": _cell(lambda chance, cell: chance.choice(["inf", "-inf", "1e999"])),
    "text in a cell": _cell(lambda chance, cell: chance.choice(["n/a?", "1,5", "0.01 ", "--", "0x1F", "#REF!"])),
    "a negative cell": _cell(lambda chance, cell: "-" + cell.lstrip("-")),
    "zero in a cell": _cell(lambda chance, cell: "0"),
    "a cell in other units": _cell(_scaled),
    "a column dropped": _column(_drop_column),
    "a column twice": _column(_double_column),
    "a column renamed": _column(_rename_column),
    "two column names swapped": _column(_swap_columns),
    "an index column": _column(_index_column),
    "a row dropped": _row(lambda chance, rows, k: rows.pop(k)),
    "a row twice": _row(lambda chance, rows, k: rows.append(list(rows[k]))),
    "a row contradicted": _row(_contradict),
    "a row cut short": _row(lambda chance, rows, k: rows.__setitem__(k, rows[k][: len(rows[k]) // 2])),
    "a row too long": _row(lambda chance, rows, k: rows[k].append("1")),
    "a number as float": _number(lambda number: f"{number}.0"),
    "a number with zeros": _number(lambda number: f"00{number}"),
    "a number with text": _number(lambda number: f"{number}b"),
    "a negative number": _number(lambda number: f"-{number}"),
    "a huge number": _number(lambda number: number * 4),
    "no number": _number(lambda number: ""),
    "rows shuffled": lambda chance, rows: [rows[0], *chance.sample(rows[1:], len(rows) - 1)],
    "no rows": lambda chance, rows: rows[:1],
}
TEXT_DAMAGES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "semicolons": lambda chance, text: text.replace(b",", b";"),
    "tabs": lambda chance, text: text.replace(b",", b"\t"),
    "empty": lambda chance, text: b"",
    "a byte order mark": lambda chance, text: b"\xef\xbb\xbf" + text,
    "UTF-16": lambda chance, text: text.decode().encode("utf-16"),
    "Windows line ends": lambda chance, text: text.replace(b"\n", b"\r\n"),
    "cut off": lambda chance, text: text[: chance.randrange(1, len(text))],
    "junk": lambda chance, text: chance.randbytes(2000),
    "an open quote": lambda chance, text: text.replace(b",", b',"', 1),
}


def damage_table(chance: random.Random, root: Path) -> tuple[str, Touched]:
    """One table, one damage."""
    name = chance.choice(TABLES)
    path, what = root / name, chance.choice([*TABLE_DAMAGES, *TEXT_DAMAGES])
    text = path.read_bytes()
    if what in TEXT_DAMAGES:
        put(path, TEXT_DAMAGES[what](chance, text))
    else:
        rows = [line.split(",") for line in text.decode(errors="replace").splitlines()]
        if len(rows) < 2 or len(rows[0]) < 2:
            return f"{name}: left as it was", set()
        put(path, "".join(",".join(row) + "\n" for row in TABLE_DAMAGES[what](chance, rows)).encode())
    return f"{name}: {what}", {EVERY} if name in ("wavelengths.csv", "adc_info.csv") else set()


# -- the axis ----------------------------------------------------------------------------------------------------------


AXIS_DAMAGES: dict[str, Callable] = {
    "a column dropped": lambda chance, table: table.drop(chance.choice(table.columns)),
    "in seconds": lambda chance, table: table.with_columns(pl.col("^.*-h$").cast(float) * 3600),
    "in days": lambda chance, table: table.with_columns(pl.col("^.*-h$").cast(float) / 24),
    "in minutes": lambda chance, table: table.with_columns(pl.col("^FGS1-axis0-h$").cast(float) * 60),
    "reversed": lambda chance, table: table.reverse(),
    "NaN": lambda chance, table: table.with_columns(pl.all().cast(float) * float("nan")),
    "half as long": lambda chance, table: table.head(table.height // 2),
    "as text": lambda chance, table: table.cast(pl.String),
    "constant": lambda chance, table: table.with_columns(pl.all().first()),
    "empty": lambda chance, table: table.head(0),
}


def damage_axis(chance: random.Random, root: Path) -> tuple[str, Touched]:
    """The times of the frames."""
    path, what = root / "axis_info.parquet", chance.choice([*AXIS_DAMAGES, "cut off"])
    if what == "cut off":
        put(path, path.read_bytes()[:-100])
    else:
        with contextlib.suppress(pl.exceptions.PolarsError):  # cut off already
            table = AXIS_DAMAGES[what](chance, pl.read_parquet(path))
            path.unlink()
            table.write_parquet(path)
    return f"axis_info.parquet: {what}", {EVERY}


# -- folders -----------------------------------------------------------------------------------------------------------


def _renamed(change: Callable[[str], str]) -> Callable:
    def damage(chance: random.Random, root: Path, split: str, planet: str) -> None:
        (root / split / planet).rename(root / split / change(planet))

    return damage


def _replaced(make: Callable[[Path], None]) -> Callable:
    def damage(chance: random.Random, root: Path, split: str, planet: str) -> None:
        shutil.rmtree(root / split / planet)
        make(root / split / planet)

    return damage


def _nested(chance, root, split, planet):
    (root / split / planet).rename(root / "aside")
    (root / split / planet).mkdir()
    (root / "aside").rename(root / split / planet / planet)


def _other_split(chance, root, split, planet):
    (root / split / planet).rename(root / ("test" if split == "train" else "train") / planet)


def _in_both(chance, root, split, planet):
    linked(root / split / planet, root / ("test" if split == "train" else "train") / planet)


def _swapped(chance, root, split, planet):
    other = chance.choice(planets(root, split))
    if other != planet:
        (root / split / planet).rename(root / "aside")
        (root / split / other).rename(root / split / planet)
        (root / "aside").rename(root / split / other)


FOLDER_DAMAGES: dict[str, Callable] = {
    "deleted": _replaced(lambda path: None),
    "emptied": _replaced(lambda path: path.mkdir()),
    "a file": _replaced(lambda path: path.write_bytes(b"x")),
    "a link to nothing": _replaced(lambda path: path.symlink_to("nowhere")),
    "named with zeros": _renamed(lambda planet: f"00{planet}"),
    "named with letters": _renamed(lambda planet: f"{planet} (1)"),
    "a negative name": _renamed(lambda planet: f"-{planet}"),
    "a float's name": _renamed(lambda planet: f"{planet}.0"),
    "a huge name": _renamed(lambda planet: planet * 3),
    "other digits": _renamed(lambda planet: planet.translate({48 + k: 0x660 + k for k in range(10)})),
    "in itself": _nested,
    "in the other split": _other_split,
    "in both splits": _in_both,
    "another's": _swapped,
    "copied": lambda chance, root, split, planet: linked(root / split / planet, root / split / str(int(planet) + 1)),
    "a stray folder beside it": lambda chance, root, split, planet: (root / split / chance.choice(["new", ".ipynb_checkpoints"])).mkdir(),
    "a stray file in it": lambda chance, root, split, planet: (root / split / planet / "FGS1_signal_x.parquet").write_bytes(b"x"),
}


def damage_folder(chance: random.Random, root: Path) -> tuple[str, Touched]:
    """A planet's folder."""
    split, what = chance.choice(["train", "test"]), chance.choice(list(FOLDER_DAMAGES))
    planet = chance.choice(planets(root, split))
    before = set(planets(root, split))
    FOLDER_DAMAGES[what](chance, root, split, planet)
    harmless = what in ("in both splits", "copied", "a stray folder beside it", "a stray file in it")
    touched = before if what == "another's" else set() if harmless else {planet}
    return f"{split}/{planet}: {what}", {(split, one) for one in touched}


# -- files -------------------------------------------------------------------------------------------------------------


def _table(change: Callable[[random.Random, pl.DataFrame], pl.DataFrame]) -> Callable:
    def damage(chance: random.Random, path: Path) -> None:
        table = change(chance, pl.read_parquet(path))
        path.unlink()
        table.write_parquet(path)

    return damage


def _one_column(expression: Callable[[str], pl.Expr]) -> Callable:
    return _table(lambda chance, table: table.with_columns(expression(chance.choice(table.columns))))


def _folder_instead(chance: random.Random, path: Path) -> None:
    path.unlink()
    path.mkdir()


def _some_nulls(name: str) -> pl.Expr:
    return pl.when(pl.int_range(pl.len()) > 3).then(pl.col(name)).alias(name)


FILE_DAMAGES: dict[str, Callable] = {
    "deleted": lambda chance, path: path.unlink(),
    "cut off": lambda chance, path: put(path, path.read_bytes()[: chance.randrange(1, path.stat().st_size)]),
    "no bytes": lambda chance, path: put(path, b""),
    "junk": lambda chance, path: put(path, chance.randbytes(3000)),
    "a folder": _folder_instead,
    "a column dropped": _table(lambda chance, table: table.drop(chance.choice(table.columns))),
    "a column renamed": _table(lambda chance, table: table.rename({chance.choice(table.columns): "x"})),
    "a row dropped": _table(lambda chance, table: table.head(table.height - 1)),
    "half of the rows": _table(lambda chance, table: table.head(table.height // 4 * 2)),
    "the other half of the rows": _table(lambda chance, table: table.tail(table.height // 4 * 2)),
    "no rows": _table(lambda chance, table: table.head(0)),
    "one row a thousand times": _table(lambda chance, table: pl.concat([table.head(1)] * table.height)),
    "another type": _table(lambda chance, table: table.cast(pl.Float32)),
    "text": _one_column(lambda name: pl.col(name).cast(pl.String)),
    "gaps": _one_column(_some_nulls),
    "nothing but zeros": _table(lambda chance, table: table.select(pl.all() ^ pl.all() if table.dtypes[0] == pl.Boolean else pl.all() * 0)),
    "a column of zeros": _one_column(lambda name: (pl.col(name) & False if name == "?" else pl.col(name).cast(pl.Int8, strict=False) * 0)),
    "transposed": _table(lambda chance, table: table.transpose()),
    "rows in another order": _table(lambda chance, table: table.sample(fraction=1, shuffle=True, seed=chance.randrange(99))),
}
PLANE_DAMAGES: dict[str, Callable] = {
    "all NaN": lambda table: table.select(pl.all().cast(float) * float("nan")),
    "half NaN": lambda table: table.with_columns(pl.when(pl.int_range(pl.len()) > 15).then(pl.all()) + 0),
    "a million times as large": lambda table: table.select(pl.all() * 1e6),
    "negative": lambda table: table.select(-pl.all()),
    "infinite": lambda table: table.select(pl.all() + float("inf")),
}


def damage_file(chance: random.Random, root: Path) -> tuple[str, Touched]:
    """A signal or a calibration product."""
    split = chance.choice(["train", "test"])
    planet, name = chance.choice(planets(root, split)), chance.choice(INSTRUMENTS)
    folder, product = root / split / planet, chance.choice(["signal", "signal", "signal", *PRODUCTS])
    path = folder / (f"{name}_signal_0.parquet" if product == "signal" else f"{name}_calibration_0/{product}.parquet")
    if not path.is_file():
        return f"{path.relative_to(root)}: left as it was", set()
    options = [*FILE_DAMAGES, "another instrument's", "another planet's", "only a second visit", "all dead"]
    what = chance.choice([*options, *(PLANE_DAMAGES if product not in ("signal", "dead") else ())])
    if what == "another instrument's":
        other = Path(str(path).replace(name, INSTRUMENTS[name == "FGS1"]))
        put(path, other.read_bytes() if other.is_file() else b"")
    elif what == "another planet's":
        other = root / split / chance.choice(planets(root, split)) / path.relative_to(folder)
        put(path, other.read_bytes() if other.is_file() else b"")
    elif what == "only a second visit":
        path.rename(str(path).replace("_0", "_1")) if product == "signal" else path.unlink()
    elif what == "all dead":
        dead = folder / f"{name}_calibration_0/dead.parquet"
        if dead.is_file():
            put(dead, b"")
            pl.DataFrame({f"column_{k}": [True] * 32 for k in range(32 if name == "FGS1" else 356)}).write_parquet(dead)
    elif what in PLANE_DAMAGES:
        _table(lambda chance, table: PLANE_DAMAGES[what](table))(chance, path)
    else:
        with contextlib.suppress(pl.exceptions.PolarsError, OSError):  # damaged already in a way that leaves nothing to damage
            FILE_DAMAGES[what](chance, path)
    return f"{path.relative_to(root)}: {what}", {(split, planet)}


DAMAGES = (damage_table, damage_table, damage_folder, damage_file, damage_file, damage_axis)


def damage(root: Path, seed: int) -> tuple[list[str], Touched]:
    """One to three damages, the same for the same seed; and which planets they touch."""
    chance, said, touched = random.Random(seed), [], set()
    for _ in range(chance.choice([1, 1, 2, 3])):
        text, about = chance.choice(DAMAGES)(chance, root)
        said.append(text)
        touched |= about
    return said, touched


# -- what becomes of it ------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """What one damaged data set led to."""

    seed: int
    damages: list[str]
    exit_code: int = 0
    sentence: str = ""
    score: float | None = None  # of the untouched test planets
    whole: float | None = None  # of the same planets without any damage
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)  # what must not be


def score_of(path: Path, root: Path, ids: list[int]) -> float:
    """The official metric of some planets of a submission."""
    from spectramind_nb.learning.metrics import ariel_score
    from spectramind_nb.observations.layout import LABEL_COLUMNS, SIGMA_COLUMNS

    table, truth = (pd.read_csv(place).set_index("planet_id") for place in (path, root / "truth" / "test.csv"))
    labels = pd.read_csv(root / "train.csv")[LABEL_COLUMNS].to_numpy()
    mu, sigma, true = (part.loc[ids].to_numpy() for part in (table[LABEL_COLUMNS], table[SIGMA_COLUMNS], truth[LABEL_COLUMNS]))
    return ariel_score(mu, sigma, true, labels.mean(), labels.std())


def _sentence_faults(exit_code: int, text: str, log: str) -> list[str]:
    found = [f"exit code {exit_code}"] if exit_code not in (0, 3, 10, 11) else []
    found += ["a trace"] if "Traceback" in text + log else []
    found += ["a sentence of several lines"] if "\n" in text.strip() else []
    found += [f"nobody foresaw it: {line}" for line in (text + "\n" + log).splitlines() if "Please report" in line]
    return found


def attempt(
    seed: int, root: Path, place: Path, run: Callable[[Path], Path], whole: Path, margin: float = 0.1, must_submit: bool = False
) -> Trial:
    """Damage a copy of the data set, run, and judge; `run` gives the submission, `whole` is that of the undamaged data.

    With `must_submit` a run that leaves no file is a fault wherever some test planet is not touched.
    """
    from spectramind_nb.core.errors import SpectraMindError

    shutil.rmtree(place, ignore_errors=True)
    copy = linked(root, place)
    said, touched = damage(copy, seed)
    trial, began, log = Trial(seed, said), time.monotonic(), io.StringIO()
    submitted = None
    with contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
        try:
            submitted = run(copy)
        except SpectraMindError as error:
            trial.exit_code, trial.sentence = error.exit_code, str(error)
        except Exception as error:  # judged below: this is what must never be seen
            trial.exit_code, trial.sentence = 1, f"{type(error).__name__}: {error}"
    trial.seconds = time.monotonic() - began
    trial.faults = _sentence_faults(trial.exit_code, trial.sentence, log.getvalue())
    ids = [int(planet) for planet in planets(root, "test") if not touched & {EVERY, ("test", planet)}]
    if submitted is None:
        trial.faults += ["no submission, though some test planets have no damage"] if must_submit and ids else []
    else:
        missing = sorted(set(ids) - set(pd.read_csv(submitted)["planet_id"]))
        trial.faults += [f"planets {missing} are not in the submission"] if missing else []
        if ids and not missing:
            trial.score, trial.whole = score_of(submitted, root, ids), score_of(whole, root, ids)
            if trial.score < trial.whole - margin:
                trial.faults.append(f"score {trial.score:.3f} of planets without damage, {trial.whole:.3f} without any")
    return trial


def trained(words: list[str]) -> Callable[[Path], Path]:
    """Train an epoch on a data set; the submission it leaves."""
    from spectramind_nb.runs.training import train

    def run(root: Path) -> Path:
        return train(overrides=[f"data.root={root}", *words], resume="never").dir / "submission.csv"

    return run


def main() -> None:
    """As in the first lines of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("damages"))
    parser.add_argument("--job", action="store_true", help="the submission job instead of a training")
    options = parser.parse_args()
    from spectramind_nb.simulation.dataset import simulate

    options.out.mkdir(parents=True, exist_ok=True)
    os.chdir(options.out)
    os.environ["SPECTRAMIND_CACHE"] = str(Path("cache").absolute())
    root = simulate(Path("root").absolute(), 8, 4, seed=5, short=True)
    words = ["data=ariel2025", "data.workers=1", "trainer.max_epochs=1", "data.batch_size=2"]
    run = submitted(words) if options.job else trained(words)
    whole = run(root)
    whole = Path(shutil.copy(whole, "whole.csv"))
    trials = []
    for seed in range(options.seed, options.seed + options.count):
        trial = attempt(seed, root, Path("damaged").absolute(), run, whole, must_submit=options.job)
        trials.append(trial)
        scores = "" if trial.score is None else f" {trial.score:.3f} / {trial.whole:.3f}"
        print(f"{seed} {trial.exit_code}{scores} {trial.seconds:.0f} s | {'; '.join(trial.damages)} | {trial.sentence}", flush=True)
        for fault in trial.faults:
            print(f"    FAULT {fault}", flush=True)
        shutil.rmtree("logs", ignore_errors=True)
    codes = pd.Series([trial.exit_code for trial in trials]).value_counts().sort_index()
    print(codes.to_string(), f"\n{sum(bool(trial.faults) for trial in trials)} of {len(trials)} have a fault")


def submitted(words: list[str]) -> Callable[[Path], Path]:
    """Run the submission job on a data set; the file it leaves."""
    from spectramind_nb.core.machine import process_start
    from spectramind_nb.runs.job import submit

    settings = {"reserve": "5s", "predict": "30s", "train": "4m", "workers": 1, "ballast": "1MB"}

    def run(root: Path) -> Path:
        settings["budget"] = f"{600 + time.time() - process_start():.0f}s"  # a job's time counts from the start of its process
        for name in ("submission.csv", "job.json"):
            Path(name).unlink(missing_ok=True)
        return submit(None, [f"data.root={root}", *words], "ci_fast", "submission.csv", settings).path

    return run


if __name__ == "__main__":
    main()
