"""Scores, errors and error bars beside the oracle, the popular recipes and the harder skies, on planets never seen.

python tests/learning/against_oracle.py [--train 1000] [--test 300] [--shifted 150] [--few 40,200] [--models] [--at DIR]
DIR keeps simulated light curves and fits for the next time.
With --models instead README's table: all models, three times 40 labels, another family. With --frames 40 and --test 60 the same
comparison from raw frames, 40 of them labelled: 230 MB a planet.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from oracle import Truth, TruthOfFrames, box_depths, oracle, oracle_of_kinds, pca_replacement, score_of, tuned

from spectramind_nb.core.configuration import compose
from spectramind_nb.core.instantiate import build
from spectramind_nb.learning.datamodule import VisitDataModule
from spectramind_nb.learning.metrics import calibration, channel_weights, edition, value_scores
from spectramind_nb.learning.planetset import planet_set
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.layout import wavelength_grid_um
from spectramind_nb.runs.planets import curves_of
from spectramind_nb.runs.stages import fill_split
from spectramind_nb.runs.trainer import bare_trainer
from spectramind_nb.simulation.dataset import simulate

SHIFTED = {  # simulator settings that training has not seen
    "transits cut by the window": {"timing": {"cut": 1.0}},
    "two visits of every planet": {"population": {"second_visit": 1.0}},
    "twice the jitter": {"jitter": {"white_px": 0.19, "red_px": 0.016}},
}


def other_family(planets: int) -> pd.DataFrame:
    """Spectra that are no atmospheres: eight bumps of random height, width and place."""
    rng, um, rows = np.random.default_rng(7), wavelength_grid_um(), []
    for _ in range(planets):
        level, widths = 10 ** rng.uniform(-3.2, -1.8), 10 ** rng.uniform(-1.5, -0.3, 8)
        shape = (rng.normal(size=8) * np.exp(-0.5 * ((um[:, None] - rng.uniform(1.9, 3.95, 8)) / widths) ** 2)).sum(axis=1)
        shape[0] += 2 * rng.normal()
        shape -= shape[1:].mean()
        shape *= rng.uniform(40, 250) * 1e-6 / shape[1:].std()
        rows.append(level + shape * min(1.0, 0.1 * level / np.abs(shape).max()))
    columns = [f"wl_{k}" for k in range(1, 284)]
    return pd.DataFrame(rows, columns=columns, index=pd.Index(range(1, planets + 1), name="planet_id"))


def planets_of(root: Path, split: str, cache: Path, training=None, model: str = "posterior"):
    config = compose(overrides=["data=ariel2025", f"data.root={root}", f"paths.cache={cache}", f"model={model}"])
    challenge = open_challenge(root)
    labels = challenge.labels() if split == "train" else Truth(root).table
    fits = fill_split(config, challenge, split, "fit")
    curves = curves_of(config, challenge, fits)
    return planet_set(sorted(challenge.planets(split)), fits.done, challenge.stars(split), labels, training, curves)


def trained(train, model: str = "posterior", epochs: int = 6, start=None, **settings):
    """The model, trained as `spectramind train` would but without a run around it; `start`: the model of a pre-training."""
    words = [f"model={model}", f"trainer.max_epochs={epochs}", *(f"model.{name}={value}" for name, value in settings.items())]
    config = compose(overrides=words)
    pl.seed_everything(config.seed, verbose=False)
    model = build(config.model, loss=build(config.loss))
    model.prepare(train)
    if start is not None:
        own = model.state_dict()
        model.load_state_dict({**start.state_dict(), **{name: own[name] for name in model.own}})
    trainer = bare_trainer(config.trainer)
    trainer.fit(model, VisitDataModule(train, train[:2], None, 32, config.seed).train_dataloader())
    return model


def line(words: str, mu, sigma, truth, naive) -> float:
    score = score_of(mu, sigma, truth, naive)
    text = f"{words:52s} score {score:.4f}"
    if not isinstance(sigma, tuple):
        found, error = calibration(mu, sigma, truth), (truth - mu) * 1e6
        shape = error[:, 1:] - error[:, 1:].mean(1, keepdim=True)
        text += "".join(f"   {name}: rms z {v['rms_z']:.3f}, 68 % {100 * v['coverage_68']:.1f}, 95 % {100 * v['coverage_95']:.1f}"
                        for name, v in found.items())
        rms = [float(v.square().mean().sqrt()) for v in (error[:, 0], error[:, 1:].mean(1), shape)]
        text += "   rms FGS1 {:.0f}, AIRS mean {:.0f}, shape {:.0f} ppm".format(*rms)
    print(text, flush=True)
    return score


def each(mu, sigma, truth, naive) -> torch.Tensor:  # (N,)
    """What each planet has in the score."""
    weights = channel_weights(edition("2025"))
    return value_scores(mu, sigma, truth, *naive, edition("2025")) @ weights / weights.sum()


def ratio(one: torch.Tensor, other: torch.Tensor) -> str:
    """Of two scores, from what each planet has in them, and the standard deviation over other planets of the kind (bootstrap)."""
    rows = torch.randint(len(one), (1000, len(one)), generator=torch.Generator().manual_seed(0))
    spread = (one[rows].mean(1) / other[rows].mean(1)).std()
    return f"{one.mean() / other.mean():.3f} +- {spread:.3f}"


@torch.no_grad()
def answer(model, planets):
    model.adapt_to(planets)
    return model(planets.tensors())


def main(train: int, test: int, shifted: int, few: list[int], at: Path) -> dict[str, float]:
    cache, scores = at / "cache", {}
    root = simulate(at / "main", train, test, seed=11, level="lightcurves")
    training = planets_of(root, "train", cache)
    unseen = planets_of(root, "test", cache, training)
    truth, naive = unseen.target, (training.target.mean(), training.target.std(correction=0))
    print(f"{train} planets to learn from, {test} never seen")
    if few:
        print("with fewer labelled planets")
    for n in [n for n in few if n < train]:
        line(f"{n} training planets", *answer(trained(training[:n]), unseen), truth, naive)
    model = trained(training)
    own = Truth(root)
    known = {
        "oracle": ("oracle that knows orbit, limb, pointing, drift", *oracle(own)),
        "oracle without drift": ("oracle that knows all of that but the drift", *oracle(own, False)),
        "oracle without sky": ("oracle that knows noise and pointing, and kinds", *oracle(own, False, False)),
        "oracle of kinds": ("our fit, met by one who knows what kinds there are", *oracle_of_kinds(own, unseen, model)),
        "posterior": ("posterior model", *answer(model, unseen)),
    }
    scores |= {name: line(*answers, truth, naive) for name, answers in known.items()}
    scores["fit"] = line("fit, no prior", unseen.depth, unseen.sigma, truth, naive)
    sigma = tuned(pca_replacement(training, training), training.target)
    scores["pca"] = line("fit, PCA replacement, tuned sigma", pca_replacement(training, unseen), sigma, truth, naive)
    spread = {}
    for split, some in (("train", training[:200]), ("test", unseen)):
        folder = Truth(root, "test") if split == "test" else Truth(root, "train")
        pairs = [box_depths(folder.light_curves(int(p), 0)) for p in some.planet_id]
        spread[split] = torch.tensor([[f, *[a] * 282] for f, a in pairs], dtype=torch.float64)
    sigma = tuned(spread["train"], training[:200].target)
    scores["box"] = line("box depth, polynomial in time, tuned sigma", spread["test"], sigma, truth, naive)
    scores["mean"] = line("mean of the training planets", naive[0].expand_as(truth), naive[1].expand_as(truth), truth, naive)
    of_planets = {name: each(*answers, truth, naive) for name, (_, *answers) in known.items()}
    print(", ".join(f"posterior / {name} {ratio(of_planets['posterior'], of_planets[name])}" for name in list(known)[:4]))
    for words, settings in SHIFTED.items() if shifted else ():
        folder = simulate(at / words.replace(" ", "_"), 2, shifted, seed=12, level="lightcurves", config=settings)
        planets = planets_of(folder, "test", cache, training)
        line(words, *answer(model, planets), planets.target, naive)
    if shifted:
        other_family(shifted + 2).to_csv(at / "family.csv")
        folder = simulate(at / "family", 2, shifted, seed=13, level="lightcurves", spectra=at / "family.csv")
        planets = planets_of(folder, "test", cache, training)
        line("spectra of another family", *answer(model, planets), planets.target, naive)
    return scores


def from_frames(labels: int, unseen: int, at: Path) -> None:
    """What 40 labels make of raw frames, and what an oracle makes of the light curves in them."""
    root, cache = simulate(at / "frames", labels, unseen, seed=11), at / "cache"
    training = planets_of(root, "train", cache)
    planets = planets_of(root, "test", cache, training)
    naive, own = (training.target.mean(), training.target.std(correction=0)), TruthOfFrames(root, cache, compose().detector)
    known = {"oracle": oracle(own), "without drift": oracle(own, False), "kinds": oracle(own, False, False),
             "posterior": answer(trained(training), planets)}
    for name, answers in known.items():
        line(name, *answers, planets.target, naive)
    line("fit, no prior", planets.depth, planets.sigma, planets.target, naive)
    of_planets = {name: each(*answers, planets.target, naive) for name, answers in known.items()}
    print(", ".join(f"posterior / {name} {ratio(of_planets['posterior'], of_planets[name])}" for name in list(known)[:3]))
    print(f"worst planet {of_planets['posterior'].min():.2f}")


def models_with_few_labels(labels: int, draws: int, unseen: int, at: Path) -> None:
    """What each model makes of few labels, drawn several times, on planets of another family in twice the jitter."""
    other_family(unseen + 2).to_csv(at / "family.csv")
    root, wild = simulate(at / "few", labels * draws, 2, seed=11, level="lightcurves"), {"jitter": SHIFTED["twice the jitter"]["jitter"]}
    family = simulate(at / "wild", 2, unseen, seed=13, level="lightcurves", spectra=at / "family.csv", config=wild)
    made = simulate(at / "made", 500, 2, seed=7, level="lightcurves")  # as in configs/pretrain/simulated.yaml
    known = planets_of(root, "train", at / "cache", model="encoder")
    planets = planets_of(family, "test", at / "cache", known, model="encoder")
    epochs = compose().trainer.max_epochs
    start = trained(planets_of(made, "train", at / "cache", model="encoder"), "encoder", epochs)
    models = {"posterior": ("posterior", {}), "ensemble": ("ensemble", {}), "encoder": ("encoder", {}),
              "pre-trained": ("encoder", {"start": start, "optimizer.lr": 0.0002})}
    for name, (model, settings) in models.items():
        scores, worst = [], []
        for draw in range(draws):
            train = known[draw * labels:(draw + 1) * labels]
            naive, made = (train.target.mean(), train.target.std(correction=0)), trained(train, model, epochs, **settings)
            answers = answer(made.eval(), planets)
            scores.append(line(f"{name}, labels {draw + 1}", *answers, planets.target, naive))
            worst.append(float(each(*answers, planets.target, naive).min()))
            print(f"  worst planet {worst[-1]:.2f}, trust {getattr(made, 'trust', torch.zeros(0)).tolist()}")
        print(f"{name}: score {np.mean(scores):.3f}, worst planet {min(worst):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("train", 1000), ("test", 300), ("shifted", 150)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--few", type=lambda text: [int(word) for word in text.split(",") if word], default=[40, 200])
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--frames", type=int, metavar="LABELS", default=0)
    parser.add_argument("--at", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        at = given.at or Path(folder)
        if given.models:
            models_with_few_labels(40, 3, 150, at)
        elif given.frames:
            from_frames(given.frames, given.test, at)
        else:
            main(given.train, given.test, given.shifted, given.few, at)
