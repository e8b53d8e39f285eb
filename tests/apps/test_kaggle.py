"""What Kaggle would refuse is refused here first, by our rules and by Kaggle's own client."""

import json
import os
import shutil
from types import SimpleNamespace

import nbformat
import pytest
from typer.testing import CliRunner

from spectramind_nb.apps.cli import app
from spectramind_nb.apps.kaggle_kernels import build_kernel, kernel_check, kernel_folder, kernel_problems, push_kernel
from spectramind_nb.apps.kaggle_metadata import PLACEHOLDER, client_request, dataset_problems, kaggle_user, metadata_problems
from spectramind_nb.core.errors import ConfigError, DamagedFileError, DataMissingError, SpectraMindError

GOOD = {
    "id": "me/spectramind-train",
    "title": "SpectraMind train",
    "code_file": "train.ipynb",
    "language": "python",
    "kernel_type": "notebook",
    "is_private": True,
    "enable_gpu": True,
    "enable_internet": False,
    "machine_shape": "NvidiaTeslaT4",
    "docker_image_pinning_type": "original",
    "dataset_sources": ["me/spectramind-bundle"],
    "competition_sources": ["ariel-data-challenge-2025"],
}
DATASET = {"id": "me/spectramind-bundle", "title": "SpectraMind bundle", "licenses": [{"name": "apache-2.0"}]}
KERNELS = sorted(path.parent.name for path in kernel_folder("train").parent.glob("*/kernel-metadata.json"))

BROKEN = {  # name of the fault -> change of the metadata, words of the sentence
    "internet on": ({"enable_internet": True}, "enable_internet"),
    "internet a word": ({"enable_internet": "false"}, "enable_internet"),
    "internet a number": ({"enable_internet": 0}, "enable_internet"),
    "title of another slug": ({"title": "Something else"}, "slug"),
    "title too short": ({"title": "Abc", "id": "me/abc"}, "5 to 50"),
    "title too long": ({"title": "a" * 60, "id": f"me/{'a' * 60}"}, "5 to 50"),
    "no owner": ({"id": "train"}, "owner/slug"),
    "a version in the id": ({"id": "me/spectramind-train/3"}, "owner/slug"),
    "retired accelerator": ({"machine_shape": "NvidiaTeslaP100"}, "retired"),
    "retired tpu": ({"machine_shape": "Tpu1VmV38"}, "retired"),
    "invented accelerator": ({"machine_shape": "NvidiaH300"}, "NvidiaTeslaT4"),
    "no accelerator named": ({"machine_shape": None}, "machine_shape"),
    "tpu": ({"enable_tpu": True}, "enable_tpu"),
    "another language": ({"language": "r"}, "language"),
    "a script": ({"kernel_type": "script"}, "kernel_type"),
    "unknown key": ({"enable_gpus": True}, "enable_gpu"),
    "private a word": ({"is_private": "yes"}, "is_private"),
    "no such data set": ({"dataset_sources": ["bundle", "me/spectramind-bundle"]}, "bundle"),
    "bundle not attached": ({"dataset_sources": ["me/other"]}, "lacks the bundle"),
    "a source twice": ({"dataset_sources": ["me/spectramind-bundle"] * 2}, "twice"),
    "no such competition": ({"competition_sources": ["a/b"]}, "a/b"),
    "no such model": ({"model_sources": ["a/b/c"]}, "a/b/c"),
    "no such kernel": ({"kernel_sources": ["train"]}, "train"),
    "image not pinned": ({"docker_image_pinning_type": "newest"}, "docker_image_pinning_type"),
    "a source that is no list": ({"dataset_sources": "me/spectramind-bundle"}, "list"),
    "notebook in a folder": ({"code_file": "nbs/train.ipynb"}, "beside the metadata"),
    "a title that is no text": ({"title": 5}, "text"),
}


@pytest.mark.parametrize(("change", "words"), BROKEN.values(), ids=BROKEN)
def test_each_fault_is_one_sentence(change, words):
    assert metadata_problems(GOOD) == []
    problems = metadata_problems({**GOOD, **change})
    assert len(problems) == 1 and words in problems[0], problems


@pytest.mark.parametrize("key", ["id", "title", "code_file", "enable_internet", "competition_sources", "docker_image_pinning_type"])
def test_a_missing_key_is_named(key):
    assert metadata_problems({k: v for k, v in GOOD.items() if k != key}) == [f"key '{key}' is missing"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"licenses": [{"name": "MIT"}]}, "MIT"),
        ({"licenses": []}, "exactly one"),
        ({"licenses": [{"name": "apache-2.0"}, {"name": "other"}]}, "exactly one"),
        ({"title": "Short"}, "6 to 50"),
        ({"id": "me/short"}, "6 to 50"),
        ({"id": "spectramind-bundle"}, "owner/slug"),
        ({"id": f"{PLACEHOLDER}/spectramind-bundle"}, "--user"),
        ({"subtitle": "too short"}, "20 to 80"),
        ({"license": "apache-2.0"}, "licenses"),
    ],
)
def test_each_fault_of_a_data_set_is_one_sentence(change, words):
    assert dataset_problems(DATASET) == []
    problems = dataset_problems({**DATASET, **change})
    assert len(problems) == 1 and words in problems[0], problems


@pytest.fixture
def folder(tmp_path, repo):
    """A kernel folder in order, to be harmed."""
    shutil.copy(repo / "kaggle" / "kernels" / "train" / "train.ipynb", tmp_path)
    (tmp_path / "kernel-metadata.json").write_text(json.dumps(GOOD))
    return tmp_path


@pytest.mark.parametrize("name", KERNELS)
def test_our_kernels_are_accepted_by_us_and_by_kaggles_client(name):
    folder = kernel_folder(name)
    assert kernel_problems(folder) == []
    request, metadata = client_request(folder), json.loads((folder / "kernel-metadata.json").read_text())
    assert request.enable_internet is False and request.machine_shape == metadata["machine_shape"]
    assert request.dataset_data_sources == metadata["dataset_sources"] and request.slug == metadata["id"]
    assert request.competition_data_sources == metadata["competition_sources"]
    assert request.docker_image_pinning_type == metadata["docker_image_pinning_type"]
    assert json.loads(request.text)["metadata"]["kernelspec"]["name"] == "python3"


def test_there_are_the_kernels_that_were_promised():
    assert {"train", "submission"} <= set(KERNELS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"title": "Something else"}, "does not resolve"),
        ({"machine_shape": "NvidiaTeslaP100"}, "retired"),
        ({"dataset_sources": ["bundle"]}, "username"),
        ({"model_sources": ["a/b"]}, "framework"),
        ({"language": "perl"}, "valid language"),
        ({"docker_image_pinning_type": "newest"}, "pinning"),
        ({"code_file": "other.ipynb"}, "other.ipynb"),
    ],
)
def test_the_clients_own_words_are_passed_on(folder, change, words):
    client_request(folder)
    (folder / "kernel-metadata.json").write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(ConfigError, match=words):
        client_request(folder)


def test_the_client_reads_no_credentials_and_leaves_nothing(folder, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle" / "kaggle.json").write_text('{"username": "me", "key": "s3cret"}')
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    before = dict(os.environ)
    assert "s3cret" not in str(vars(client_request(folder)))
    assert dict(os.environ) == before and [p.name for p in home.rglob("*")] == [".kaggle", "kaggle.json"]
    assert kaggle_user() == "me" and kaggle_user("you") == "you"
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    with pytest.raises(ConfigError, match="--user"):
        kaggle_user()


def test_kernel_folders_without_their_files(tmp_path):
    with pytest.raises(DataMissingError, match="kernel-metadata"):
        kernel_check(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "kernel-metadata.json").write_text(text)
        with pytest.raises(DamagedFileError):
            kernel_check(tmp_path)
    (tmp_path / "kernel-metadata.json").write_text(json.dumps(GOOD))
    with pytest.raises(ConfigError, match=r"train\.ipynb"):
        kernel_check(tmp_path)
    with pytest.raises(DataMissingError, match="Did you mean 'train'"):
        kernel_folder("trian")


def test_a_notebook_has_rules_too(folder):
    path = folder / "train.ipynb"
    whole = nbformat.read(path, 4)
    for harm, words in (
        (lambda nb: nb.metadata.pop("kernelspec"), "python3"),
        (lambda nb: nb.cells[1].metadata.pop("tags"), "parameters"),
    ):
        harmed = nbformat.from_dict(json.loads(nbformat.writes(whole)))
        harm(harmed)
        nbformat.write(harmed, path)
        assert [words in problem for problem in kernel_problems(folder)] == [True]
    nbformat.write(whole, path)
    (folder / "kernel-metadata.json").write_text(json.dumps({**GOOD, "competition_sources": ["titanic"]}))
    assert ["ariel-data-challenge-2025" in problem for problem in kernel_problems(folder)] == [True]


def answer(**fields):
    return SimpleNamespace(**{"error": "", "version_number": 3, "url": "there", "ref": "me/x", **fields})


class Kaggle:
    """Answers a push, and keeps what was sent."""

    def __init__(self, reply):
        self.reply, self.sent = reply, None

    def kernels_push(self, folder):
        self.sent = json.loads(open(os.path.join(folder, "kernel-metadata.json")).read())
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def test_push_sends_what_build_makes_in_the_users_name(tmp_path):
    built = build_kernel("submission", tmp_path / "kernel", "someone")
    site = Kaggle(answer())
    assert push_kernel("submission", "someone", site) == "there"
    assert site.sent == json.loads((built / "kernel-metadata.json").read_text())
    assert site.sent["id"] == "someone/spectramind-submission" and PLACEHOLDER not in json.dumps(site.sent)
    with pytest.raises(ConfigError, match="not empty"):
        build_kernel("submission", tmp_path / "kernel", "someone")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(error="Maximum batch GPU session count reached."), "Maximum batch GPU"),
        (answer(invalid_dataset_sources=["me/spectramind-bundle"]), "me/spectramind-bundle"),
        (answer(invalid_competition_sources=["nope"]), "competition sources nope"),
        (answer(version_number=0), "no version"),
        (None, "no version"),
        (ConnectionError("no route\nto host"), "no route to host"),
    ],
)
def test_push_fails_when_kaggle_says_so(reply, words):
    with pytest.raises(SpectraMindError, match=words) as caught:
        push_kernel("train", "someone", Kaggle(reply))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1


def test_push_without_credentials_says_so(tmp_path, monkeypatch):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="credentials"):
        push_kernel("train", "someone")


def test_the_commands_build_and_check(tmp_path):
    runner = CliRunner()
    done = runner.invoke(app, ["kernel", "build", "train", "--out", str(tmp_path / "k"), "--user", "someone"])
    assert done.exit_code == 0 and (tmp_path / "k" / "train.ipynb").is_file()
    assert runner.invoke(app, ["kernel", "check", "train"]).exit_code == 0
    (tmp_path / "k" / "kernel-metadata.json").write_text(json.dumps({**GOOD, "enable_internet": True}))
    done = runner.invoke(app, ["kernel", "check", str(tmp_path / "k")])
    assert done.exit_code == 2 and "enable_internet" in done.stderr
