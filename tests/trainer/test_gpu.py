"""What `make gpu` shows, each promise as a test for a machine with a GPU; without one, that its counting and its refusals work."""

import json

import pytest
import torch

needs_gpu = pytest.mark.gpu
MODELS = ("posterior", "encoder")


@pytest.fixture(scope="module")
def gpu(script):
    return script("trainer/gpu.py")


@pytest.fixture(scope="module")
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("NOT TESTED ON A GPU: there is no CUDA device")


@pytest.fixture(scope="module")
def rows(cuda, gpu, tmp_path_factory, short_root):
    """profile and model -> its row of the table, made once."""
    here, known = gpu.Workspace(tmp_path_factory.mktemp("gpu")), {}

    def row(profile: str, model: str) -> dict:
        if (profile, model) not in known:
            if profile not in gpu.fitting([profile]):
                pytest.skip(f"NOT TESTED ON A GPU: {profile} does not fit this machine")
            known[profile, model] = gpu.examined(here, short_root, profile, model, cuda=True)
        return known[profile, model]

    return row


@needs_gpu
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("profile, half", [("defaults", "float32"), ("kaggle_safe", "float16"), ("a100", "bfloat16"), ("h100", "bfloat16")])
def test_p25_p46_half_precision_is_half_precision(rows, profile, half, model):
    assert half in rows(profile, model)["precision"].values()


@needs_gpu
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("profile", ["defaults", "kaggle_safe", "multi_gpu", "t4x2"])
def test_p21_p60_a_run_on_a_gpu_repeats_and_resumes_bit_for_bit(rows, profile, model):
    found = rows(profile, model)  # which ends with `Broken` where it does not
    assert (found["replay"], found["resume"]) == ("identical", "identical")


@needs_gpu
@pytest.mark.parametrize("model", MODELS)
def test_p47_precisions_differ_and_agree(gpu, rows, model):
    found = [rows(profile, model) for profile in ("defaults", "kaggle_safe")]
    assert found[0]["digest"] != found[1]["digest"]
    gpu.compared(found)
    assert all("score_off" in row for row in found)


@needs_gpu
@pytest.mark.parametrize("model", MODELS)
def test_a_gpu_predicts_what_the_processor_predicts(gpu, rows, model):
    assert rows("defaults", model)["gpu_beside_cpu"][0] < gpu.NEAR[model]


@needs_gpu
@pytest.mark.parametrize("model", MODELS)
def test_a_step_is_quick_and_fits(cuda, gpu, model):
    steps = gpu.at_real_size(model, cuda=True)
    assert all(row["gpu_gb"] > 0 and row["gpu_ms"] > 0 for row in steps)
    gpu.quick_and_small(steps)  # which ends with `Broken` where it is not so


# -- without a GPU ---------------------------------------------------------------------------------------------------


def test_operations_and_bytes_are_counted_by_dtype(gpu):
    left, right = torch.ones(2, 3, 5), torch.ones(2, 5, 7)
    with gpu.Counter() as counted:
        _ = left @ right
        _ = (left.double() @ right.double()).sum()
    products = [kernel for kernel in counted.kernels if kernel[1] == 2 * 2 * 3 * 7 * 5]
    assert [dtype for dtype, *_ in products] == ["float32", "float64"]
    assert [size for *_, size in products] == [4 * (30 + 70 + 42), 8 * (30 + 70 + 42)]
    a_second = {"rates": {"float32": 420.0, "float64": 42.0}, "bytes_s": 1e12, "launch_s": 0.0}
    assert counted.on(**a_second) > 1 + 10 and counted.on(**{**a_second, "launch_s": 100.0}) == 100 * len(counted.kernels)


def test_scores_that_are_apart_break_the_promise(gpu):
    exact = {"profile": "defaults", "model": "posterior", "score": 0.5, "score_float64": 0.5}
    gpu.compared([exact, {"profile": "kaggle_safe", "model": "posterior", "score": 0.5009}])
    with pytest.raises(gpu.Broken, match="kaggle_safe, posterior: the score is"):
        gpu.compared([exact, {"profile": "kaggle_safe", "model": "posterior", "score": 0.4989}])


def test_too_much_memory_breaks_the_promise(gpu):
    step = {"model": "encoder", "precision": "32-true", "planets": 32, "cpu_ms": 60.0, "gpu_ms": 6.0, "gpu_gb": 3.9}
    gpu.quick_and_small([step])
    with pytest.raises(gpu.Broken, match="encoder, 32-true, 32 planets a step: 4.1 GB on the GPU with 1100 planets"):
        gpu.quick_and_small([{**step, "gpu_gb": 4.1}])


def test_the_script_says_loudly_that_there_is_no_gpu_and_what_it_did_not_come_to(gpu, monkeypatch, capsys, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("NOT TESTED: there is a GPU")
    monkeypatch.setattr(gpu.Workspace, "spectramind", lambda *words, **more: "")
    monkeypatch.setattr("sys.argv", ["gpu.py", "--minutes", "0", "--profiles", "defaults,h100", "--json", str(tmp_path / "found.json")])
    assert gpu.main() == 1
    said = capsys.readouterr().out
    assert "NO GPU" in said and "h100         does not fit this machine" in said and "BROKEN defaults, posterior: not shown" in said
    assert len(json.loads((tmp_path / "found.json").read_text())["broken"]) == 4
