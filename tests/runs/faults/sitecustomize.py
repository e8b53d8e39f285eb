"""Visits that are slow, hang or crash, as FAULTY_VISITS says: every Python with this folder on its path has them.

FAULTY_VISITS is JSON: {"seconds": {"full": 6, "plain": 2}, "crash": [planet, ..], "hang": [planet, ..]}; without it nothing changes.
A crash and a hang happen to the full photometry of a planet's first visit, "always" in both: {"crash": [..], "always": [..]}.
"""

import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time

ROOM = "spectramind_nb.observations.lightcurves"


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


class Finder(importlib.abc.MetaPathFinder):
    """Wraps one function of one module when it is imported; its source, and so its digest, stay as they are."""

    def find_spec(self, name, path, target=None):
        if name != ROOM:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            module.extract_visit = harmed(module.extract_visit, json.loads(os.environ["FAULTY_VISITS"]))

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("FAULTY_VISITS"):
    sys.meta_path.insert(0, Finder())
