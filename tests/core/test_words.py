"""What people type means what it says: texts as they stand, names that can be found again, faults with the right form."""

import os
import pickle
import re

import numpy as np
import pytest

from spectramind_nb.core.configuration import adjusted, compose, read_config
from spectramind_nb.core.errors import ConfigError, DamagedFileError, SchemaError
from spectramind_nb.core.overrides import override_words
from spectramind_nb.core.quantities import check_run_id
from spectramind_nb.runs import submission


@pytest.mark.parametrize("name", [
    "my data (1)", "a,b", "a=b", "d#2", "it's", 'say "so"', "donn\u00e9es", "2025", "1e5", "true",
    "back\\slash", "[a]", "{a: 1}", "glob(*)",
])
@pytest.mark.parametrize("key", ["data.root", "paths.cache", "logger.mlflow.experiment"])
def test_where_only_text_can_stand_it_is_taken_as_typed(key, name):
    config = compose(overrides=[f"{key}={name}"])
    assert eval(f"config.{key}") == name
    again = compose(overrides=list(config.launch.overrides))  # what is recorded reads the same
    assert again == config


@pytest.mark.parametrize("word, value", [
    ("data.root='my data'", "my data"), ('data.root="it\'s"', "it's"), ("data.root=null", None), ("+data.root=2025", "2025"),
    ("data.root=~/data", os.path.expanduser("~/data")), ("data.root='~/data'", os.path.expanduser("~/data")),
    ("data.root=${oc.env:HOME}/data", os.path.expanduser("~/data")), ("data.root=a~b", "a~b"),
])
def test_quotation_marks_null_home_and_variables_keep_their_meaning(word, value):
    assert compose(overrides=[word]).data.root == value


def test_the_home_folder_is_meant_in_every_path(monkeypatch):
    assert compose(overrides=["paths.root=~/w"]).paths.cache == os.environ.get("SPECTRAMIND_CACHE", os.path.expanduser("~/w/cache"))
    monkeypatch.setenv("SPECTRAMIND_CACHE", "~/stores")
    assert compose().paths.cache == os.path.expanduser("~/stores")


@pytest.mark.parametrize("typed", ["20261127", "2026_11_27", "1e5", "true", "0x10", "nuit d'\u00e9t\u00e9 (2)", "a=b", "2026-11-27"])
def test_a_run_may_be_called_what_a_folder_may_be_called(typed):
    assert compose(overrides=[f"run_id={typed}"]).run_id == typed == compose(run_id=typed).run_id


@pytest.mark.parametrize("name", [
    "", " ", ".", "..", "../x", "a/b", "/abs", "a\\b", ".hidden", "-rf", "~me", "a\nb", "a\x7fb", "\u00e9" * 51, "x" * 101, "auto", "never",
    "invocations", "audit.jsonl", "best.ckpt", "s.CSV", "x ",
])
def test_a_name_under_which_no_run_can_be_found_again_is_refused_when_composing(name):
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        check_run_id(name)
    with pytest.raises(ConfigError, match="run_id: .*cannot be the name of a run"):
        compose(overrides=["run_id='" + name + "'"])


@pytest.mark.parametrize("word, said", [
    ("data.root=${oc.env:NOPE_NOPE}", "environment variable NOPE_NOPE is not set"),
    ("run_id=${oc.env:NOPE_NOPE}", "environment variable NOPE_NOPE is not set"),
    ("seed=${nope.key}", "stands for no key (seed)"),
    ("seed=${seed}", "refers to itself"),
    ("seed=${nope:1}", "nope"),
    ("data.root=${", "data.root"),
    ("trainer.doc=${a}${b", "trainer.doc"),
])
def test_a_value_that_stands_for_nothing_is_a_fault_of_the_configuration(word, said):
    with pytest.raises(ConfigError) as caught:
        compose(overrides=[word])
    assert said in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("words, said", [
    (["ci_fast"], "Did you mean trainer=ci_fast?"),
    (["ci_fsat"], "Did you mean trainer=ci_fast?"),
    (["ariel2025"], "Did you mean data=ariel2025?"),
    (["max_epochs=3"], "Did you mean trainer.max_epochs=3?"),
    (["trainer.max_epochs"], "Did you mean trainer.max_epochs=VALUE?"),
    (["trainer.max_epochs=3 seed=1"], "as a word of its own"),
    (["simulator.calibration.folder=my (1)"], "in a shell \"simulator.calibration.folder='my (1)'\""),
    (["data.root="], "data.root"),
    (["model=null"], "there is no model option"),
])
def test_what_is_no_override_is_answered_with_the_right_form(words, said):
    with pytest.raises(ConfigError) as caught:
        compose(overrides=words)
    assert said in str(caught.value)


def test_python_takes_what_the_command_line_takes():
    plain = compose("ci_fast", ["trainer.max_epochs=2"])
    assert compose("ci_fast", "trainer.max_epochs=2") == plain
    assert compose("ci_fast", "trainer.max_epochs=2\n\n") == plain
    assert compose("ci_fast", ("trainer.max_epochs=2",)) == plain
    assert compose("ci_fast", seed=7).seed == 7
    with pytest.raises(ConfigError, match=r"Did you mean trainer\.max_epochs=3\?"):
        compose("ci_fast", max_epochs=3)
    with pytest.raises(ConfigError, match=r"overrides=\['trainer.max_epochs=2'\]"):
        compose("trainer.max_epochs=2")
    with pytest.raises(ConfigError, match="'3' is not an override"):
        compose("ci_fast", 3)
    assert override_words("seed=1", data="synthetic", model=None) == ["data=synthetic", "seed=1"]


def test_no_experiment_is_a_choice_too():
    for word in ("experiment=null", "experiment=none"):
        assert compose(overrides=["experiment=demo", word]) == compose()
        assert adjusted(compose(), [word]).seed == compose().seed
    with pytest.raises(ConfigError, match="an experiment is a choice for a new run"):
        adjusted(compose(), ["experiment=demo"])


@pytest.mark.parametrize("word, said", [
    (f"seed={'9' * 300}", r"seed: must be less than 4294967296, not 999999… \(300 digits\)"),
    (f"seed={'9' * 5000}", r"the number in 'seed=999999… \(5000 digits\)' has too many digits"),  # Python reads no more than 4300
    ("simulator.star.airs_um=null", "simulator.star.airs_um: must ascend"),
])
def test_a_value_out_of_all_bounds_costs_one_short_sentence(word, said):
    with pytest.raises(ConfigError, match=said) as refused:
        compose("ci_fast", word)
    assert len(str(refused.value)) < 150


def test_numbers_of_hundreds_of_digits_are_cut_in_every_sentence(tmp_path):
    error = SchemaError(f"planet 7 has {1e300:f}, not -{10**99}", tmp_path / ("5" * 50), f"Give less than {1e200:.0f}")
    said = f"planet 7 has 100000… (301 digits), not -100000… (100 digits) ({tmp_path}/{'5' * 50}). Give less than 999999… (200 digits)."
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == said
    depths = np.full((1, 283), 1e290)
    path = submission.write(tmp_path / "s.csv", [1], depths, depths)
    assert re.search(r"depths [19]\d{5}… \(29[67] digits\) to [19]\d{5}… \(29[67] digits\) ppm", str(submission.validate(path)))


def test_a_configuration_that_is_cut_anywhere_is_a_damaged_file(tmp_path):
    path, whole = tmp_path / "config.yaml", compose("ci_fast")
    lines = whole.yaml().splitlines(keepends=True)
    for kept in range(0, len(lines), 7):  # where YAML is still valid, too
        path.write_text("".join(lines[:kept]))
        with pytest.raises(DamagedFileError, match="the configuration of the run cannot be read") as refused:
            read_config(path)
        assert refused.value.exit_code == 3
    path.write_text("".join(lines).replace("max_epochs: ", "epochs: "))
    with pytest.raises(ConfigError, match="another version, or changed by hand"):
        read_config(path)
    path.write_text("".join(lines))
    assert read_config(path) == whole
