"""Cells of a screen with one definition each, types that agree: what breaks these rules today may not become more."""

import json

import debts
import pytest


@pytest.mark.check
@pytest.mark.parametrize("rule", debts.RULES)
def test_nothing_new_breaks_a_rule_of_the_house(rule):
    known, found = json.loads(debts.RECORD.read_text())[rule], debts.RULES[rule]()
    grown = {name: f"{known.get(name, 0)} -> {count}" for name, count in found.items() if count > known.get(name, 0)}
    assert not grown, f"{debts.RULES[rule].__doc__} Grown: {grown}"


def test_rules_see_what_breaks_them(monkeypatch):
    long, short = "x = 1\n" * 61, "x = 1\n" * 60
    two, helped = "def f(): ...\nclass G: ...\n", "def f(): ...\ndef _g(): ...\n"
    cells = {"long": long, "short": short, "two": two, "helped": helped}
    monkeypatch.setattr(debts, "exported_cells", lambda: cells)
    assert debts.long_cells() == {"long": 61} and debts.crowded_cells() == {"two": 2}
