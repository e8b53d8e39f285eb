"""Visits and trainings that fail, as the environment says: every Python with this folder on its path has them.

FAULTY_VISITS is JSON: {"seconds": {"full": 6, "plain": 2}, "crash": [planet, ..], "hang": [planet, ..]}; without it nothing changes.
A crash and a hang happen to the full photometry of a planet's first visit, "always" in both: {"crash": [..], "always": [..]}.

FAULTY_TRAINING is a word, `refused` or one of TRAININGS: what happens to a process that is about to train; with a `+` behind it to
each of them, else only to the first of a submission job, the one as asked.
"""

import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time


def harmed(extract_visit, plan):
    """The same function with accidents."""

    def extract(root, planet_id, visit=0, split="train", config=None, threads=None):
        rung = "plain" if config["weights"] == "sum" else "full"
        if split == "test" and (rung == "full" or planet_id in plan.get("always", [])):
            if planet_id in plan.get("crash", []):
                os.kill(os.getpid(), signal.SIGSEGV)
            while planet_id in plan.get("hang", []):
                time.sleep(1)
        time.sleep(plan.get("seconds", {}).get(rung, 0))
        return extract_visit(root, planet_id, visit, split, config, threads)

    return extract


def harm_visits(module):
    """Visits fail."""
    module.extract_visit = harmed(module.extract_visit, json.loads(os.environ["FAULTY_VISITS"]))


def out_of_memory(session, model, *_):
    """As PyTorch says it, by really asking for too much."""
    import torch

    torch.empty(10**15, device=model.device)


def not_a_number(session, model, *_):
    """From the first step on."""
    step = model.training_step

    def training_step(batch, batch_idx):  # Lightning looks at these names
        return step(batch, batch_idx) * float("nan")

    model.training_step = training_step


def slow(session, model, *_):
    """It waits most of the time: what only looks at a run that goes on leaves the processor to others."""
    step = model.training_step

    def training_step(batch, batch_idx):
        time.sleep(0.1)
        return step(batch, batch_idx)

    model.training_step = training_step


def full_disk(*_):
    """Nothing more can be written to any file."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


TRAININGS = {
    "memory": out_of_memory, "nan": not_a_number, "disk": full_disk, "slow": slow,
    "killed": lambda *_: os.kill(os.getpid(), signal.SIGKILL), "hung": lambda *_: os.kill(os.getpid(), signal.SIGSTOP),
}


def trains_as_asked():
    """Is this the process that a fault is meant for?"""
    return os.environ["FAULTY_TRAINING"].endswith("+") or any("-job-asked-" in given for given in sys.argv)


def harm_training(module):
    """Trainings fail."""
    if trains_as_asked():
        begin, fault = module._fit, TRAININGS[os.environ["FAULTY_TRAINING"].removesuffix("+")]

        def fit(*arguments):
            fault(*arguments)
            return begin(*arguments)

        module._fit = fit


def refuse_training(module):
    """A GPU is seen and does not compute."""
    if trains_as_asked():
        resolve, gpu = module.resolve_devices, module.Gpu("Tesla P100-PCIE-16GB", (6, 0))
        seen = [] if os.environ.get("CUDA_VISIBLE_DEVICES") == "" else [gpu]
        error = "CUDA error: no kernel image is available for execution on the device"
        module.resolve_devices = lambda profile, here: resolve(profile, here, seen, lambda index: error)


HARMED = {"FAULTY_VISITS": ("spectramind_nb.observations.lightcurves", harm_visits),
          "FAULTY_TRAINING": ("spectramind_nb.runs.devices", refuse_training) if os.environ.get("FAULTY_TRAINING", "").startswith("refused")
          else ("spectramind_nb.runs.training_loop", harm_training)}


class Finder(importlib.abc.MetaPathFinder):
    """Changes a module when it is imported; its source, and so its digest, stay as they are."""

    def __init__(self, room, harm):
        self.room, self.harm = room, harm

    def find_spec(self, name, path, target=None):
        if name != self.room:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            self.harm(module)

        spec.loader.exec_module = exec_module
        return spec


for variable, change in HARMED.items():
    if os.environ.get(variable):
        sys.meta_path.insert(0, Finder(*change))
