"""The promises of the trainer layer, each with the tests that carry its number in their name: `make promises`.

Runs these tests, prints promise -> tests -> result, and fails if a test fails or a promise has none.
`--list` only collects.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

PROMISES = {
    "1": "every orchestration knob comes from the composed YAML",
    "2": "profiles are chosen by name, from the package or elsewhere",
    "3": "every invocation leaves a record",
    "4": "overrides win, are recorded apart; an edited profile is noticed",
    "5": "defaults.yaml is the baseline and runs on a laptop",
    "6": "kaggle_safe.yaml: wall, AMP, little I/O",
    "7": "ci_fast.yaml: tiny, at most 20 minutes, no checkpoints",
    "8": "multi_gpu.yaml: every GPU of one machine",
    "9": "ddp.yaml: devices times nodes, explicit",
    "10": "the README beside the profiles, its commands executed",
    "11": "architecture.md lists every profile and only those",
    "12": "config, overrides and choices lie in the run directory",
    "13": "train.yaml selects a profile",
    "14": "overrides at the top of the group; unknown keys are answered",
    "15": "the Trainer is built from the configuration only",
    "16": "events, checkpoints, config hash and run hash",
    "17": "profiles hold orchestration only",
    "18": "other groups hold none",
    "19": "every run is driven by composed YAML, which is kept",
    "20": "one console script, one code path",
    "21": "a replay is bit for bit the same",
    "21b": "deterministic by default, benchmark on demand",
    "21c": "checkpoints and logs inside a budget",
    "22": "defaults: validation, clipping, documented precision",
    "23": "defaults: one device, a hint when more are idle",
    "24": "the wall is never overrun, and leaves a checkpoint",
    "25": "the precision that is really used is recorded",
    "26": "conservative loader workers reach the loader",
    "27": "writes are throttled and bounded",
    "28": "kaggle_safe locks its guards",
    "29": "ci_fast: one epoch, few batches",
    "30": "ci_fast: no checkpoint file",
    "31": "CSV always, TensorBoard if installed",
    "32": "each fault has its own code and names the tensor",
    "33": "JSON and JUnit summaries for CI",
    "34": "more devices than there are: a sentence before anything starts",
    "35": "DDP without unused parameters, built by _target_",
    "36": "multi_gpu: mixed precision by policy",
    "37": "ranks stay equal",
    "38": "accumulation recorded, refused with a static graph",
    "39": "ddp: both numbers mandatory, checked against the launcher",
    "40": "synchronised batch norm only where it works",
    "41": "static graph where applicable",
    "42": "ranks are of one kind",
    "43": "checkpoints lie on shared storage",
    "44": "the ledger takes concurrent writers",
    "45": "data and weights have digests",
    "46": "half precision with clipping, never with a fused optimizer",
    "47": "bf16 where native; escalation after skips",
    "48": "only rank 0 writes",
    "49": "kaggle_safe saves seldom",
    "50": "resume equals the uninterrupted run",
    "51": "a bar for people, lines for logs, CSV kept on resume",
    "52": "trackers behind toggles",
    "53": "no network where none is promised",
    "54": "seeds everywhere, never null",
    "55": "new profiles: drop in, check, document",
    "56": "h100 and a100: bf16, TF32, NCCL, capability",
    "57": "ablation: frequent snapshots, branches with lineage",
    "58": "eval_only: score a checkpoint or a submission",
    "59": "spectramind train trainer=defaults",
    "60": "spectramind train trainer=kaggle_safe trainer.max_epochs=30",
    "61": "spectramind train trainer=ci_fast",
    "62": "spectramind train trainer=multi_gpu trainer.devices=4",
    "63": "spectramind train trainer=ddp trainer.devices=8 trainer.num_nodes=2",
    "64": "the guard rails are told and recorded",
    "65": "merged configurations are captured",
    "66": "the envelope is reported at the end",
}


def numbers(
    name: str,  # of a test, such as test_p37_p48_ranks_stay_equal
) -> list[str]:
    """The promises that a test names."""
    return re.findall(r"_p(\d+[bc]?)(?=_)", name) if re.match(r"test_p\d", name) else []


class Table:
    """A pytest plugin: keeps the tests that name promises, and remembers how they ended."""

    def __init__(self) -> None:
        self.tests: dict[str, set[str]] = defaultdict(set)
        self.outcomes: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        others = [item for item in items if not numbers(item.name)]
        items[:] = [item for item in items if numbers(item.name)]
        config.hook.pytest_deselected(items=others)
        for item in items:
            for number in numbers(item.name):
                self.tests[number].add(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def state(self, number: str) -> str:
        """What is known about a promise."""
        outcomes = [self.outcomes.get(test, "not run") for test in sorted(self.tests[number])]
        if not outcomes:
            return "NO TEST"
        for state in ("failed", "not run"):
            if state in outcomes:
                return f"{state.upper()} {outcomes.count(state)} of {len(outcomes)}"
        skipped = outcomes.count("skipped")
        if skipped == len(outcomes):
            return "SKIPPED"
        return "pass" + (f", {skipped} skipped" if skipped else "")


def main(arguments: list[str]) -> int:
    table, listing = Table(), "--list" in arguments
    folder = Path(__file__).parent
    pytest.main([str(folder), "-q", "--no-header", *(["--collect-only", "-qq"] if listing else [])], plugins=[table])
    print("\npromise                                                                    tests  result")
    for number, words in PROMISES.items():
        state = "" if listing and table.tests[number] else table.state(number)
        print(f"{number:>4}  {words:<68} {len(table.tests[number]):>5}  {state}")
    unknown = sorted(set(table.tests) - set(PROMISES))
    states = [table.state(number) for number in PROMISES]
    kept = sum(state.startswith("pass") for state in states)
    print(f"{kept} of {len(PROMISES)} promises are kept" + (f"; unknown numbers: {', '.join(unknown)}" if unknown else ""))
    missing = any(state == "NO TEST" for state in states)
    return int(bool(unknown) or missing or (not listing and kept < len(PROMISES)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
