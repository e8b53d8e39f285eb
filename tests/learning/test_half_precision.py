"""What models compute in less than float64, beside the same in float64; and nothing that CUDA cannot do twice alike."""

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision
from test_encoder import SMALL
from test_encoder import population as curves
from test_posterior import answer, population, score, trainer
from torch.utils._python_dispatch import TorchDispatchMode

from spectramind_nb.core.errors import ConfigError
from spectramind_nb.learning.datamodule import VisitDataModule
from spectramind_nb.learning.encoder import EncoderModel
from spectramind_nb.learning.ensemble import Ensemble
from spectramind_nb.learning.planetset import PlanetSet
from spectramind_nb.learning.posterior import PosteriorModel

EXACT = {"conditioning": "float64", "exemplars": "float64"}
HALVES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def few():
    return population(40, 1, unfitted=1)


@pytest.fixture(scope="module")
def held():
    return population(60, 2, unfitted=1)


@pytest.fixture(scope="module")
def pair(few):
    """The same weights in a model as it comes, and in one that computes everything in float64."""
    model, exact = PosteriorModel(), PosteriorModel(compute=EXACT)
    model.prepare(few)
    exact.load_state_dict(model.state_dict())
    return model, exact


def within(half, model, *arguments):
    """A model's answer inside autocast, as Lightning calls it in a mixed run; on a processor fp16 is real too."""
    with torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None):
        return model(*arguments)


def real(precision: str) -> dict:
    """Lightning's arguments; for fp16 its own plugin with a real scaler, since the word alone becomes bfloat16 on a processor."""
    return {"plugins": [MixedPrecision("16-mixed", "cpu")]} if precision == "16-mixed" else {"precision": precision}


@pytest.mark.parametrize("dtype", HALVES)
def test_p47_an_answer_is_that_of_float64_within_bounds(pair, held, dtype):
    model, exact = pair
    mu, sigma = answer(exact, held)
    with torch.no_grad():
        found_mu, found_sigma = within(HALVES[dtype], model, held.tensors())
    computed = {"likelihood": "float64", "conditioning": "float32", "exemplars": dtype}
    assert model.computed == computed and set(exact.computed.values()) == {"float64"}
    assert not torch.equal(found_mu, mu) and found_mu.dtype == found_sigma.dtype == torch.float64
    with torch.no_grad():
        within(HALVES[dtype], model.eval(), held.tensors())
    assert set(model.train().computed.values()) == {"float64", "float32"}, "what is submitted is not in half precision"
    tolerance = {"float32": 1e-4, "bfloat16": 0.01, "float16": 0.002}[dtype]  # of a standard deviation
    assert float(((found_mu - mu) / sigma).abs().max()) < tolerance and float((found_sigma / sigma - 1).abs().max()) < 0.01


def strange(planets, kind: str, size: float) -> PlanetSet:
    """Fits as nobody wants to see them."""
    fields = {name: tensor.clone() for name, tensor in planets.tensors().items()}
    own, patterns, told = fields["own_variance"], fields["patterns"], fields["nuisance_covariance"][..., :283]
    sigma = planets.sigma
    each = torch.full_like(sigma, size if kind == "sigma" else size**0.5 if kind == "alike" else 1.0)
    if kind == "one channel":
        each[:, 100] = size
    if kind == "missing":  # a third of the channels of all planets; all but FGS1 and one of the first five
        gone = torch.rand(sigma.shape, generator=torch.Generator().manual_seed(1)) < 1 / 3
        gone[:5, 2:] = True
        each = (~gone).double()
        fields["depth"] *= each
    own *= each.square()
    patterns *= each[:, None]
    told *= each[:, None]
    if kind == "missing":
        own += size * gone
    if kind == "alike":  # all but this share of the variance is common to all channels
        fields["patterns"] = torch.cat([patterns, (1 - size) ** 0.5 * sigma[:, None]], dim=1)
    if kind == "depth":
        fields["depth"] = fields["target"] = torch.full_like(sigma, size)
    return PlanetSet(**fields)


STRANGE = [("sigma", 1e-3), ("sigma", 1e3), ("alike", 1e-3), ("alike", 1e-8), ("depth", 0.0), ("depth", 0.2), ("depth", -0.01),
           ("missing", 1e-2), ("one channel", 1e-3)]  # fmt: skip


@pytest.mark.parametrize("kind, size", STRANGE)
def test_p47_the_worst_fits_stay_finite_and_near_float64(pair, held, kind, size):
    model, exact = pair
    planets = strange(held[30:], kind, size)
    mu, sigma = answer(exact, planets)
    for half in HALVES.values():
        model.zero_grad()
        with torch.no_grad():
            found_mu, found_sigma = within(half, model, planets.tensors())
        assert float(((found_mu - mu) / sigma).abs().max()) < 0.1 and float((found_sigma / sigma - 1).abs().max()) < 0.02
        taught_mu, taught_sigma = within(half, model, planets.tensors(), model.fold(planets.planet_id))
        model.loss(taught_mu, taught_sigma, planets.target, model.naive_mean, model.naive_sigma).backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("precision, dtype", [
    ("32-true", "float32"), ("bf16-mixed", "bfloat16"), ("16-mixed", "float16"), ("64-true", "float64"),
])  # fmt: skip
def test_p47_a_training_holds_the_bounds(few, held, precision, dtype):
    trained = []
    for compute, arguments in ((EXACT, {}), ({}, real(precision)), ({}, real(precision))):
        model = PosteriorModel(compute=compute)
        model.prepare(few)
        fit = trainer(2, limit_val_batches=0, **arguments)
        fit.fit(model, datamodule=VisitDataModule(few, held, None, 8, 0))
        trained.append(model)
    exact, model, again = trained
    assert model.computed["exemplars"] == dtype and model.computed["conditioning"] == ("float64" if dtype == "float64" else "float32")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    moved = exact.value("level") - exact.start_level
    assert float(moved.abs()) > 0 and float((model.value("level") - exact.value("level")) / moved) == pytest.approx(0, abs=0.1)
    (_, expected), (_, found) = answer(exact, held), answer(model.eval(), held)
    assert score(model, held) == pytest.approx(score(exact, held), abs=0.001) and float((found / expected - 1).abs().max()) < 0.01
    scaler = getattr(fit.precision_plugin, "scaler", None)
    assert scaler is None or scaler.get_scale() >= 2.0**14, "steps were taken, not skipped"


@pytest.mark.parametrize("precision, dtype", [("bf16-mixed", "bfloat16"), ("16-mixed", "float16"), ("64-true", "float64")])
def test_p47_the_encoder_trains_in_what_the_profile_asks(precision, dtype):
    some, others = curves(24, 1), curves(40, 2)
    scores = {}
    for words in ("32-true", precision):
        torch.manual_seed(0)
        model = EncoderModel(**SMALL)
        model.prepare(some)
        before = score(model, others)
        trainer(20, limit_val_batches=0, **real(words)).fit(model, datamodule=VisitDataModule(some, others, None, 8, 0))
        computed = dict(model.computed)
        scores[words] = score(model, others)
    assert computed["curves"] == computed["likelihood"] == "float64" and computed["network"] == dtype
    assert scores[precision] > before + 0.05 and scores[precision] == pytest.approx(scores["32-true"], abs=0.02)


def test_a_part_can_be_held_back(few):
    some = curves(24, 1)
    model = EncoderModel(**SMALL, compute={"network": "float64", **EXACT})
    model.prepare(some)
    within(torch.bfloat16, model, some.tensors())
    assert set(model.computed.values()) == {"float64"} and model.networks[0].position.dtype == torch.float64
    with pytest.raises(ConfigError, match="'likelihood' cannot run in 'half'"):
        PosteriorModel(compute={"likelihood": "half"})
    with pytest.raises(ConfigError, match="no part 'network'"):
        PosteriorModel(compute={"network": "half"})
    ensemble = Ensemble(PosteriorModel(compute=EXACT), folds=2)
    ensemble.prepare(few)
    answer(ensemble, few)
    assert set(ensemble.computed.values()) == {"float64"}


# -- CUDA ------------------------------------------------------------------------------------------------------------

REFUSED = {  # by torch.use_deterministic_algorithms on CUDA, in this version of PyTorch or an older one that is supported
    "histc", "bincount", "kthvalue", "median.dim", "nanmedian.dim", "cumsum", "put_", "index_copy", "ctc_loss", "_ctc_loss",
    "upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "upsample_trilinear3d_backward",
    "reflection_pad1d_backward", "reflection_pad2d_backward", "replication_pad1d_backward", "replication_pad2d_backward",
    "grid_sampler_2d_backward", "max_pool3d_with_indices_backward", "adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward",
    "avg_pool3d_backward", "fractional_max_pool2d_backward", "max_unpool2d", "nll_loss2d_forward", "_embedding_bag_dense_backward",
    "scatter_reduce.two", "segment_reduce",
}  # fmt: skip


class Deterministic(TorchDispatchMode):
    """Refuses on any device what CUDA refuses under deterministic algorithms."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.")
        if REFUSED & {name, name.rpartition(".")[0]}:
            raise RuntimeError(f"{name} does not have a deterministic implementation on CUDA")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("refused", [
    lambda: torch.histc(torch.rand(5)), lambda: torch.rand(5, 3).median(0), lambda: torch.rand(5).cumsum(0),
    lambda: torch.nn.functional.interpolate(torch.rand(1, 1, 4, requires_grad=True), 8, mode="linear").sum().backward(),
])  # fmt: skip
def test_the_refusal_works(refused):
    refused()
    with pytest.raises(RuntimeError, match="no.* deterministic"), Deterministic():
        refused()


def test_p21b_nothing_in_a_step_a_validation_or_a_prediction_is_refused_by_cuda(few, held):
    """`prepare` and the planets' own preparation run on the processor; what is moved to a GPU is here."""
    some = curves(24, 1)
    encoder, ensemble = EncoderModel(**SMALL, dropout=0.1), Ensemble(PosteriorModel(), folds=2)
    for model, taught, others in ((PosteriorModel(), few, held), (encoder, some, some), (ensemble, few, held)):
        model.prepare(taught)
        data = VisitDataModule(taught, others, others, 20, 0)
        with Deterministic():
            model.adapt_to(others)
            fit = trainer(1)
            fit.fit(model, datamodule=data)
            fit.predict(model, datamodule=data)
