"""What the trainer layer promises of GPUs, shown on the machine at hand in six minutes at most: `make gpu`.

    PYTHONPATH=.:tests python tests/trainer/gpu.py [--models posterior] [--profiles defaults,kaggle_safe] [--minutes 6] [--json FILE]

Every profile that fits the machine x both models: a run of a few steps, its replay (the second of two equal runs), the same run
killed with SIGKILL and resumed, its predictions beside those of the processor. Then a step at its real size: seconds, memory, beside
one thread of the processor and beside what counted bytes and operations say of a T4. Red, and exit code 1, where a promise breaks or
time ran out. Needs PyTorch and the package with its requirements, but no notebook: no ipywidgets, papermill or kernel. Without a GPU it
shows its processor columns.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from own_process import Forked, command, run_forked
from torch.utils._python_dispatch import TorchDispatchMode

from spectramind_nb.core.configuration import compose
from spectramind_nb.core.environment import Place
from spectramind_nb.core.errors import SpectraMindError
from spectramind_nb.core.instantiate import build
from spectramind_nb.learning.metrics import CHANNELS
from spectramind_nb.learning.planetset import FEATURES, PlanetSet
from spectramind_nb.records.journal import events
from spectramind_nb.runs.devices import gpus, resolve_devices
from spectramind_nb.runs.planets import bins_of
from spectramind_nb.runs.run import Run

REPO = Path(__file__).resolve().parents[2]
PROFILES = ("defaults", "kaggle_safe", "multi_gpu", "a100", "h100", "t4x2")
_FITS_EXACT = ["model.compute.conditioning=float64", "model.compute.exemplars=float64"]
EXACT = {"posterior": _FITS_EXACT, "encoder": [*_FITS_EXACT, "model.compute.network=float64"]}
NEAR = {"posterior": 0.02, "encoder": 0.1}  # of a sigma: predictions of a GPU beside the processor's, in float32
SCORES = {"posterior": 0.001, "encoder": 0.02}  # between precisions
BATCHES, PLANETS, STEPS = (32, 256), 1100, 12
LEAD = 20  # of a step of the posterior with 256 planets before one thread of the processor; with 32 a GPU waits for launches
RED, GREEN, PLAIN = ("\033[31;1m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class Broken(Exception):
    """A promise that does not hold, in a sentence."""


# -- runs ------------------------------------------------------------------------------------------------------------


class Workspace:
    """A workspace in which each command is a process of its own, forked from one that has imported all and touched no GPU."""

    def __init__(self, folder: Path):
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # to ask for GPUs must not start CUDA in the process that is forked
        self.folder, self.env = folder, {**os.environ, "PYTHONPATH": str(REPO), "SPECTRAMIND_CACHE": str(folder / "cache")}

    def spectramind(self, *words: object, expect: int = 0) -> str:
        """What a command prints. Raises `Broken` for another exit code."""
        done = run_forked(command, ["spectramind", *map(str, words)], self.folder, self.env, timeout=120)
        if done.returncode != expect:
            raise Broken(f"spectramind {' '.join(map(str, words))} ended with {done.returncode}: {(done.stderr or '').strip()[-300:]}")
        return done.stdout

    def killed(self, *words: object, after_steps: int) -> None:
        """A run that is killed with SIGKILL, its whole group, after some steps."""
        name = next(word.removeprefix("run_id=") for word in words if str(word).startswith("run_id="))
        process = Forked(command, ["spectramind", *map(str, words)], self.folder, self.env)
        diary, deadline = self.folder / "logs" / name / "events.jsonl", time.time() + 90
        while process.poll() is None and time.time() < deadline:
            if diary.is_file() and sum(line["event"] == "step" for line in events(diary)) >= after_steps:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate(10)
                return
            time.sleep(0.005)
        raise Broken(f"{name} was over before it could be killed: {process.communicate(10)[1][-300:]}")

    def run(self, name: str) -> Run:
        return Run(self.folder / "logs" / name)


def table_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """mu and sigma of a submission."""
    table = pd.read_csv(path, index_col="planet_id").to_numpy()
    return table[:, :CHANNELS], table[:, CHANNELS:]


def examined(here: Workspace, root: Path, profile: str, model: str, cuda: bool) -> dict[str, object]:
    """A row of the table: a run, the same again, killed and resumed, and its predictions on the processor."""
    words = [f"trainer={profile}", f"model={model}", f"data.root={root}", "data.batch_size=8", "data.workers=1", "trainer.max_epochs=4",
             "trainer.wall.budget=null", "trainer.unlock=true", "trainer.checkpoint.every=0s", "trainer.loader.num_workers=0",
             "trainer.loader.persistent_workers=false", "trainer.loader.prefetch_factor=null"]  # fmt: skip
    name = f"{profile}-{model}"
    here.spectramind("train", *words, f"run_id={name}")
    run = here.run(name)
    row: dict[str, object] = {"profile": profile, "model": model, "precision": run.record["precision"], "score": run.metrics["val/score"]}
    row["digest"] = run.record["weights"]["final"][:12]
    here.spectramind("replay", name)  # ends with 20 unless all is identical
    row["replay"] = "identical"
    here.killed("train", *words, f"run_id={name}-killed", after_steps=5)
    here.spectramind("train", *words, f"run_id={name}-killed", "--resume", f"{name}-killed")
    resumed = here.run(f"{name}-killed")
    if resumed.record["attempt"] != 2 or resumed.record["weights"] != run.record["weights"]:
        raise Broken(f"{name}, killed and resumed, has other weights ({resumed.record['weights']['final'][:12]}, not {row['digest']})")
    row["resume"] = "identical"
    if profile == "defaults":
        here.spectramind("train", *words, *EXACT[model], f"run_id={name}-exact")
        row["score_float64"] = here.run(f"{name}-exact").metrics["val/score"]
    if cuda:
        for device in ("gpu", "cpu"):
            here.spectramind("predict", name, f"trainer.accelerator={device}", "trainer.devices=1", "--out", f"{name}-{device}.csv")
        (gpu_mu, gpu_sigma), (mu, sigma) = (table_of(here.folder / f"{name}-{device}.csv") for device in ("gpu", "cpu"))
        row["gpu_beside_cpu"] = float(np.abs((gpu_mu - mu) / sigma).max()), float(np.abs(gpu_sigma / sigma - 1).max())
        if row["gpu_beside_cpu"][0] > NEAR[model]:
            raise Broken(f"{name}: predictions of the GPU are {row['gpu_beside_cpu'][0]:.2f} sigma from those of the processor")
    return row


def compared(rows: list[dict]) -> None:
    """Scores of all precisions beside float64. Raises `Broken` where they are further apart than 0.001 (posterior) or 0.02 (encoder)."""
    for row in rows:
        exact = next((other["score_float64"] for other in rows if other["model"] == row["model"] and "score_float64" in other), None)
        if exact is not None:
            row["score_off"] = row["score"] - exact
            if row["profile"] in ("defaults", "kaggle_safe") and abs(row["score_off"]) > SCORES[row["model"]]:
                raise Broken(f"{row['profile']}, {row['model']}: the score is {row['score_off']:+.4f} from that of float64")


# -- a step at its real size -----------------------------------------------------------------------------------------


def planets(count: int, bins, seed: int = 1) -> PlanetSet:
    """Planets with the shapes and sizes of real ones; for time and memory, not for scores."""
    draw = torch.Generator().manual_seed(seed)
    normal = lambda *size: torch.randn(*size, generator=draw, dtype=torch.float64)  # noqa: E731
    depth = 0.01 + 1e-4 * normal(count, CHANNELS)
    own_variance, patterns = torch.full_like(depth, 3e-5**2), 1e-5 * normal(count, 10, CHANNELS)
    features, target = normal(count, len(FEATURES)), depth + 3e-5 * normal(count, CHANNELS)
    curves = None
    if bins is not None:
        template = ((bins.time / 4 - (torch.arange(bins.time) - bins.time / 2).abs()) / 4).clamp(0, 1).double()
        flux = -0.01 * template + 4e-4 * normal(count, 1 + bins.wavelength, bins.time)
        curves = torch.stack([flux, torch.full_like(flux, 4e-4**-2), template.expand_as(flux)], dim=1).float()
        features[:, 0], features[:, 1] = depth.mean(1).log(), -10.0
    return PlanetSet(torch.arange(count), depth, own_variance, patterns, features, target, curves=curves)


class Counter(TorchDispatchMode):
    """Bytes that kernels read and write, and operations of products and factors, by dtype."""

    def __init__(self):
        super().__init__()
        self.kernels: list[tuple[str, float, float]] = []  # dtype, operations, bytes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        made = [t for t in (result if isinstance(result, (tuple, list)) else [result]) if isinstance(t, torch.Tensor)]
        given = [t for t in args if isinstance(t, torch.Tensor)]
        views = {t.untyped_storage().data_ptr() for t in given} if not func._schema.is_mutable else set()
        fresh = [t for t in made if t.untyped_storage().data_ptr() not in views]
        if fresh:
            size = sum(t.numel() * t.element_size() for t in [*given, *fresh])
            operations = float(fresh[0].numel())
            if name in ("mm", "bmm", "addmm", "baddbmm"):
                operations *= 2 * given[-1].shape[-2]
            elif "convolution" in name:
                operations *= 2 * given[1][0].numel() * (2 if "backward" in name else 1)
            elif "cholesky" in name or "linalg" in name:
                operations *= fresh[0].shape[-1]
            self.kernels.append((str(fresh[0].dtype).removeprefix("torch."), operations, size))
        return result

    def on(self, rates: dict[str, float], bytes_s: float, launch_s: float) -> float:
        """Seconds on a card: each kernel costs its launch, its operations or its bytes, whichever is longest."""
        slowest = rates["float32"]
        return sum(max(launch_s, operations / rates.get(dtype, slowest), size / bytes_s) for dtype, operations, size in self.kernels)

    def __str__(self) -> str:
        of = {dtype: sum(operations for other, operations, _ in self.kernels if other == dtype) / 1e9 for dtype, *_ in self.kernels}
        told = ", ".join(f"{billions:.2f} in {dtype}" for dtype, billions in sorted(of.items()) if billions >= 0.005)
        return f"{len(self.kernels)} kernels, {sum(size for *_, size in self.kernels) / 1e6:.0f} MB, 1e9 operations: {told}"


T4 = {"rates": {"float64": 0.25e12, "float32": 8.1e12, "float16": 30e12, "bfloat16": 2e12}, "bytes_s": 320e9, "launch_s": 8e-6}


def stepper(model_name: str, precision: str, device: str, words: list[str], batch_size: int):
    """A training step at its real size: some of 1,100 planets, as many exemplars as a model keeps; and the model."""
    config = compose(overrides=[f"model={model_name}", *words])
    torch.manual_seed(config.seed)
    model = build(config.model, loss=build(config.loss))
    few = planets(96, bins_of(config.model))
    model.prepare(few)
    if model_name == "posterior":  # as many exemplars as 1,100 planets have
        times = -(-1024 // model.exemplars.shape[1])
        model.exemplars, model.exemplar_shares = (tensor.repeat(1, times, *[1] * (tensor.ndim - 2))[:, :1024] for tensor in
                                                  (model.exemplars, model.exemplar_shares / times))  # fmt: skip
    fields = {name: tensor[torch.arange(PLANETS) % 96] for name, tensor in model.fields(few).items()}
    model.log = lambda *arguments, **more: None
    model.to(device)
    half = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision)
    scaler = torch.amp.GradScaler(device, enabled=half == torch.float16)
    optimizer = torch.optim.AdamW(model.parameters(), **model.hparams.optimizer)

    def step(number: int) -> None:
        rows = torch.arange(number * batch_size, (number + 1) * batch_size) % PLANETS
        batch = {name: tensor[rows].to(device) for name, tensor in fields.items()}
        optimizer.zero_grad()
        with torch.autocast(device, half or torch.bfloat16, enabled=half is not None):
            loss = model.training_step(batch, number)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step, model


def timed(step, device: str, steps: int = STEPS) -> float:
    """Median seconds of a step, on the processor of its time there."""
    taken = []
    for number in range(steps):
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter() if device == "cuda" else time.process_time()
        step(number)
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append((time.perf_counter() if device == "cuda" else time.process_time()) - began)
    return statistics.median(taken[2:])


def at_real_size(model: str, cuda: bool) -> list[dict[str, object]]:
    """Seconds a step, memory, and what a T4 would take, precision by precision."""
    torch.set_num_threads(1)
    rows = []
    native = cuda and torch.cuda.get_device_capability() >= (8, 0)
    small, large = BATCHES
    halves = ["16-mixed", "bf16-mixed"] if native or not cuda else ["16-mixed"]
    for precision, size in [("float64", small), ("32-true", small), *((half, small) for half in halves), ("32-true", large)]:
        words = EXACT[model] if precision == "float64" else []
        step, made = stepper(model, precision, "cpu", words, size)
        step(0)
        with Counter() as counted:
            step(1)
        row = {"model": model, "precision": precision, "planets": size, "counted": str(counted), "t4_ms": 1e3 * counted.on(**T4)}
        if precision != "16-mixed":  # which a processor only imitates
            row["cpu_ms"] = 1e3 * timed(step, "cpu", 4)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            step, made = stepper(model, precision, "cuda", words, size)
            row["gpu_ms"] = 1e3 * timed(step, "cuda", 3 * STEPS)
            row["gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
            row["computed"] = dict(made.computed)
        rows.append(row)
    return rows


def quick_and_small(steps: list[dict]) -> None:
    """Raises `Broken` for a step on a GPU that takes too much memory, or too long on a card of an A100's generation or later."""
    for row in steps:
        name = f"{row['model']}, {row['precision']}, {row['planets']} planets a step"
        if row["gpu_gb"] > 4:
            raise Broken(f"{name}: {row['gpu_gb']:.1f} GB on the GPU with {PLANETS} planets, more than 4")
        lead = row.get("cpu_ms", float("inf")) / row["gpu_ms"]
        if row["model"] == "posterior" and row["planets"] == BATCHES[1] and lead < LEAD and torch.cuda.get_device_capability() >= (8, 0):
            raise Broken(f"{name}: {lead:.1f} x one thread of the processor, less than {LEAD}")


# -- all of it -------------------------------------------------------------------------------------------------------


def machine() -> str:
    """Cards, driver, versions."""
    said = f"torch {torch.__version__}, {os.cpu_count()} cores"
    if not torch.cuda.is_available():
        return said
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, timeout=10).stdout.split("\n")[0].strip()
    except OSError:
        driver = "unknown"
    cards = ", ".join(f"{gpu.name} ({gpu.capability[0]}.{gpu.capability[1]})" for gpu in gpus())
    return f"{cards}, driver {driver}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, {said}"


def fitting(profiles: list[str]) -> list[str]:
    """The profiles that this machine can run; of the others, why not."""
    found = []
    for profile in profiles:
        try:
            resolve_devices(compose(profile).trainer.plain(), Place())
            found.append(profile)
        except SpectraMindError as error:
            print(f"{profile:12s} does not fit this machine: {error}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="posterior,encoder")
    parser.add_argument("--profiles", default=",".join(PROFILES))
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--json", type=Path, help="everything that was found")
    asked = parser.parse_args()
    began, cuda, broken = time.time(), torch.cuda.is_available(), []
    models = asked.models.split(",")

    def out_of_time(what: str) -> bool:
        if time.time() - began < 60 * asked.minutes:
            return False
        broken.append(f"{what}: not shown, {asked.minutes:g} minutes are over")
        return True

    print(machine())
    if not cuda:
        print(f"{RED}NO GPU: there is no CUDA device here. What follows are the processor's columns; they say nothing about a GPU.{PLAIN}")
    rows, steps = [], []
    with tempfile.TemporaryDirectory() as scratch:
        here, root = Workspace(Path(scratch)), Path(scratch) / "data"
        here.spectramind("simulate", "--out", root, "--train", 30, "--test", 6, "--short", "--level", "lightcurves")
        here.spectramind("fit", f"data.root={root}")
        print(f"data and fits made: {time.time() - began:.0f} s", flush=True)
        for profile in fitting(asked.profiles.split(",")):
            for model in models:
                if out_of_time(f"{profile}, {model}"):
                    continue
                try:
                    rows.append(examined(here, root, profile, model, cuda))
                    print(json.dumps(rows[-1]), f"{time.time() - began:.0f} s", flush=True)
                except Broken as error:
                    broken.append(str(error))
        for model in models:
            if not out_of_time(f"a step of the {model}"):
                steps += at_real_size(model, cuda)
        for check, found in ((compared, rows), (quick_and_small, steps if cuda else [])):
            try:
                check(found)
            except Broken as error:
                broken.append(str(error))
    print(report(rows, steps))
    if asked.json:
        asked.json.write_text(json.dumps({"machine": machine(), "runs": rows, "steps": steps, "broken": broken}, indent=1))
    for sentence in broken:
        print(f"{RED}BROKEN {sentence}{PLAIN}")
    print(f"{GREEN}every promise that could be shown here holds{PLAIN}" if not broken else f"{RED}{len(broken)} broken{PLAIN}",
          f"({time.time() - began:.0f} s{'' if cuda else ', NO GPU'})")
    return 1 if broken else 0


def markdown(title: str, *rows: list[str]) -> list[str]:
    """A table, its first row the heads."""
    heads, *rest = rows
    return ["", title, "", *(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rest))]


def report(rows: list[dict], steps: list[dict]) -> str:
    """Both tables, as Markdown."""
    heads = ["profile", "model", "precision, part by part", "score (off float64)", "weights", "replay", "killed, resumed", "GPU beside CPU"]
    runs = []
    for row in rows:
        beside = "{:.1e} sigma, sigma {:.1e}".format(*row["gpu_beside_cpu"]) if "gpu_beside_cpu" in row else "no GPU"
        used = ", ".join(f"{part} {dtype}" for part, dtype in row["precision"].items())
        score = f"{row['score']:.4f}" + (f" ({row['score_off']:+.1e})" if "score_off" in row else "")
        runs.append([row["profile"], row["model"], used, score, row["digest"], row["replay"], row["resume"], beside])
    lines = markdown("Runs:", heads, *runs)
    heads = ["model", "precision", "planets", "one CPU thread", "GPU", "x", "GPU memory", "a T4, from what was counted", "counted"]
    each = []
    for row in steps:
        alone, gpu = row.get("cpu_ms"), row.get("gpu_ms")
        measured = ["no GPU", "-", "no GPU"]
        if gpu:
            measured = [f"{gpu:.1f} ms", f"{alone / gpu:.0f}" if alone else "-", f"{row['gpu_gb']:.2f} GB"]
        told = [f"{row['t4_ms']:.0f} ms", row["counted"]]
        each.append([row["model"], row["precision"], str(row["planets"]), f"{alone:.0f} ms" if alone else "-", *measured, *told])
    return "\n".join([*lines, *markdown(f"A training step with so many of {PLANETS:,} planets:", heads, *each), ""])


if __name__ == "__main__":
    sys.exit(main())
