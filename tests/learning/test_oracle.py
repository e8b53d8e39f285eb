"""The order of answers on a small set: the oracle above the model, the model above what needs no prior."""

import pytest
from against_oracle import main


@pytest.mark.filterwarnings("ignore")
def test_the_model_stands_between_the_oracle_and_the_popular_recipes(tmp_path, capsys):
    scores = main(train=24, test=10, shifted=0, few=[], at=tmp_path)
    assert scores["oracle"] > scores["posterior"] > scores["pca"] > scores["box"] > scores["mean"] == 0
    assert scores["oracle without drift"] > scores["oracle of kinds"] > scores["posterior"] > scores["fit"] + 0.1
    assert "posterior / oracle" in capsys.readouterr().out
