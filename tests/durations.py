"""A pytest plugin: how long tests take is written down, and decides what is quick, what has to begin first, and who does it.

`--record-durations` (`make test`) writes durations.json: the tests and the fixtures that take more than a second, in seconds, and how long
all the others of a file take together. `--quick` (`make check`) leaves out tests that are in it and those that need a dear fixture, and
keeps what is marked `check`.
"""

import json
import os
import time
from collections import defaultdict
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).with_name("durations.json")
DEAR_S = 5.5  # a fixture is shared by many tests: it may take longer than a test
APART = "::test_notebook_runs["  # each in a process of its own: ten minutes that must not fall to one worker


def pytest_addoption(parser):
    group = parser.getgroup("durations")
    group.addoption("--quick", action="store_true", help="only tests that take at most a second, and those marked `check`")
    group.addoption("--record-durations", action="store_true", help=f"write {RECORD.name}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than cores: tests of walls, browsers, kernels and other processes wait more than they compute."""
    return (os.cpu_count() or 1) + 1


def pytest_configure(config):
    config.pluginmanager.register(Durations(config), "durations-of-this-run")


class Durations:
    """What is known from earlier runs, and what this one takes."""

    def __init__(self, config: pytest.Config):
        self.config = config
        self.known = {"tests": {}, "fixtures": {}, "others": {}} | (json.loads(RECORD.read_text()) if RECORD.is_file() else {})
        self.taken: dict[str, dict[str, float]] = {"tests": {}, "fixtures": {}}  # plain: it travels from the workers

    def is_quick(self, item: pytest.Item) -> bool:
        """Is the test short, and all that is made for it not too dear? What was never measured is taken to be quick; notebooks are not,
        nor what is marked `slow`, however long it took this time."""
        dear = [name for name in item.fixturenames if self.known["fixtures"].get(fixture_id(item, name), 0) > DEAR_S]
        short = not dear and item.nodeid not in self.known["tests"] and APART not in item.nodeid
        short = short and item.get_closest_marker("slow") is None
        return short or item.get_closest_marker("check") is not None  # as a notebook is that has changed

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        """Those that take long begin first, or one worker would be left alone with one of them."""
        quick = self.config.getoption("quick")
        if quick:
            left_out = [item for item in items if not self.is_quick(item)]
            items[:] = [item for item in items if self.is_quick(item)]
            self.config.hook.pytest_deselected(items=left_out)
        shares: dict[str, float] = defaultdict(float)
        here = {item.nodeid for item in items}
        for kind, known in self.known.items():
            for name, seconds in known.items():
                if name in here or kind == "others" or kind == "fixtures" and not (quick and seconds > DEAR_S):
                    shares[share_of(name)] += seconds
        items.sort(key=lambda item: -shares[share_of(item.nodeid)])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config, log):
        """A worker takes a whole file at a time, because its tests share fixtures, and of the notebooks one."""
        from xdist.scheduler import LoadScopeScheduling

        class ByShare(LoadScopeScheduling):
            def _split_scope(self, nodeid):
                return share_of(nodeid)

            def remove_node(self, node):
                """The test that a worker died of, such as one that hung, is not given to the next: each would die of it in turn."""
                pending = [(unit, test) for unit in self.assigned_work[node].values() for test, done in unit.items() if not done]
                for unit, test in pending[:1]:
                    unit[test] = True
                super().remove_node(node)
                return pending[0][1] if pending else None

        return ByShare(config, log)

    def note(self, kind: str, name: str, seconds: float) -> None:
        """What is done several times, as a fixture is, counts with the longest."""
        self.taken[kind][name] = max(self.taken[kind].get(name, 0.0), seconds)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        began = time.monotonic()
        try:
            return (yield)
        finally:
            self.note("tests", item.nodeid, time.monotonic() - began)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        began = time.monotonic()
        try:
            return (yield)
        finally:
            self.note("fixtures", f"{fixturedef.baseid}::{fixturedef.argname}", time.monotonic() - began)

    def pytest_sessionfinish(self, session):
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["taken"] = self.taken
        elif self.config.getoption("record_durations"):
            taken = {**self.taken, "others": together(self.taken["tests"])}
            RECORD.write_text(json.dumps({kind: renewed(self.known[kind], taken[kind]) for kind in taken}, indent=1) + "\n")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        for kind, taken in getattr(node, "workeroutput", {}).get("taken", {}).items():
            for name, seconds in taken.items():
                self.note(kind, name, seconds)


def fixture_id(item: pytest.Item, name: str) -> str:
    """Its file and its name: files may have fixtures of the same name."""
    (*_, fixturedef) = item._fixtureinfo.name2fixturedefs.get(name, [None])
    return f"{fixturedef.baseid}::{name}" if fixturedef else name


def together(taken: dict[str, float]) -> dict[str, float]:
    """What the tests that take at most a second take together, by file."""
    others: dict[str, float] = defaultdict(float)
    for name, seconds in taken.items():
        if seconds <= 1:
            others[share_of(name)] += seconds
    return others


def renewed(known: dict[str, int], taken: dict[str, float]) -> dict[str, int]:
    """Whole seconds of what takes more than one; files that did not run keep their entries.

    What took more before stays until it takes less than half: a machine's mood changes few lines, and a test that found done what
    another had to do is not quick for that.
    """
    ran = {file_of(name) for name in taken}
    kept = {name: seconds for name, seconds in known.items() if file_of(name) not in ran and (REPO / file_of(name)).exists()}
    long = {name: max(1, round(seconds)) for name, seconds in taken.items() if seconds > (0.5 if name in known else 1)}
    return dict(sorted((kept | long).items()))


def file_of(name: str) -> str:
    """The part of a test's or fixture's name that is a path."""
    return name.split("::")[0]


def share_of(name: str) -> str:
    """What one worker does without a break."""
    return name if APART in name else file_of(name)
