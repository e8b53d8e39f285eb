"""What people type means what it says: texts as they stand, names that can be found again, faults with the right form."""

import os

import pytest

from spectramind_nb.core.configuration import adjusted, compose
from spectramind_nb.core.errors import ConfigError
from spectramind_nb.core.overrides import override_words
from spectramind_nb.core.quantities import check_run_id


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
