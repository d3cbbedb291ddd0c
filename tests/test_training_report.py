"""The report of trainings made by hand: tables, figures, sentences, whatever is known of a row."""

import copy

import numpy as np
import pytest

from thalweg import report
from thalweg.report.tables import tables
from thalweg.report.training_figures import training_figures
from thalweg.train.record import add_costs, add_targets
from thalweg.train.sentences import training_sentences

STEPS = np.arange(10, 1001, 10)


def band(mean, width=0.1):
    mean = np.asarray(mean, dtype=float)
    return {
        "mean": mean.tolist(),
        "low": (mean * (1 - width)).tolist(),
        "high": (mean * (1 + width)).tolist(),
    }


def estimate(mean, error=0.0):
    return {"mean": mean, "error": error}


def row(label, family, rate, seconds, accuracy=0.9, **more):
    """A row whose loss falls as exp(-rate step)."""
    time = (seconds * STEPS / STEPS[-1]).tolist()
    axes = {"step": STEPS.tolist(), "seconds": time}
    return {
        "label": label,
        "family": family,
        "batch_size": 32,
        "step": "0.1",
        "last_step": 0.1,
        "steps": 1000,
        "seeds": 5,
        "unbiased": True,
        "diverged": 0,
        "stopped": False,
        "failure": None,
        "loss": estimate(np.exp(-1000 * rate), 1e-3),
        "test_loss": estimate(0.4, 0.01),
        "test_accuracy": accuracy and estimate(accuracy, 0.002),
        "seconds": seconds,
        "steps_per_second": 5000 / seconds,
        "curves": {**axes, "loss": band(np.exp(-rate * STEPS))},
        "evaluation": {
            **axes,
            "loss": band(0.4 + np.exp(-rate * STEPS)),
            "accuracy": accuracy and band(accuracy - np.exp(-rate * STEPS)),
        },
        "target": None,
        "cost": None,
        "gauge": None,
        "switches": [],
        "track": None,
        **dict.fromkeys(
            (
                *("assessed", "sharpness", "nonuniformity", "smallest_eigenvalue"),
                *("largest_step_gd", "mean_sample_gradient", "largest_step", "stable"),
            )
        ),
        **more,
    }


def selected(sharpness, lowest, stable):
    return {
        "assessed": {"seeds": 2, "samples": 2000, "step": 0.1},
        "sharpness": estimate(sharpness, 0.2),
        "nonuniformity": estimate(2 * sharpness, 0.3),
        "smallest_eigenvalue": estimate(lowest, 0.0),
        "largest_step_gd": estimate(2 / sharpness, 0.01),
        "mean_sample_gradient": estimate(1.2, 0.1),
        "largest_step": stable and estimate(1.5 / sharpness, 0.01),
        "stable": stable,
    }


def gauge(ratio, cost, sentence):
    at = np.arange(0, 1000, 200)
    return {
        "step": at.tolist(),
        "trace_sgd": (2.0 * ratio * np.ones(5)).tolist(),
        "trace_rr": (2.0 * np.ones(5)).tolist(),
        "variance_ratio": (ratio * np.linspace(0.8, 1, 5)).tolist(),
        "variance_ratio_error": [0.05] * 5,
        "cost_ratio": [cost] * 5,
        "speed_up": [ratio / cost] * 5,
        "pays": [ratio > cost] * 5,
        "sentence": sentence,
    }


def training(rows):
    add_targets(rows)
    add_costs(rows)
    return {
        "schema": "thalweg.train/1",
        "kind": "training",
        "title": "digits: a 64-32-10 ReLU net on 1437 samples, cross-entropy",
        "description": "5 seeds a row, 2410 parameters, sgd, 20 epochs",
        "source": "",
        "problem": {"name": "digits", "n": 1437, "parameters": 2410, "reading": {}},
        "arguments": {"problem": "<digits>.toml", "data_dir": None, "track": 1.0},
        "configuration": 'loss = "<cross-entropy>"',
        "environment": {"thalweg": "0.1.0"},
        "rows": rows,
        **training_sentences(rows),
    }


def everything():
    track = {
        "steps": [100, 500, 1000],
        "sharpness": [2.0, 5.0, 9.0],
        "nonuniformity": [3.0, 6.0, 8.0],
        "threshold": [0.5, 0.2, 0.1],
        "products": 350.0,
    }
    failed = row("SGD, step 10, B=32", "sgd", 1e-3, 1.0, failure="the loss is not finite any more")
    unknown = ("loss", "test_loss", "test_accuracy", "seconds", "steps_per_second", "evaluation")
    failed |= dict.fromkeys(unknown) | {"diverged": 5, "steps": 17}
    failed["curves"] = {"step": [], "seconds": [], "loss": band([])}
    return training(
        [
            row("SGD, B=32", "sgd", 3e-3, 1.0, track=track, **selected(9.0, -0.5, "no")),
            row("SGD, half step, B=32", "sgd-half", 1.5e-3, 1.0, **selected(6.0, 0.0, "yes")),
            row(
                "RR rolling, B=32",
                "rolling",
                6e-3,
                1.25,
                0.93,
                gauge=gauge(1.9, 1.12, "RR would pay here: 1.9 times less variance"),
                **selected(12.0, 0.0, None),
            ),
            row("auto, B=32", "auto", 4e-3, 1.1, 0.9, switches=["Rolling took over at step 400"]),
            failed,
        ]
    )


def test_targets_are_where_the_test_loss_of_the_first_row_is_reached():
    plain, half, rolling, _, failed = everything()["rows"]
    # Test losses are .4 + exp(-rate k): with twice the rate as low after half of the 1000 steps.
    assert plain["target"]["loss"] == pytest.approx(0.4 + np.exp(-3))
    assert plain["target"]["step"] == 1000
    assert half["target"]["step"] is None
    assert rolling["target"]["step"] == 500
    assert rolling["target"]["seconds"] == pytest.approx(1.25 / 2)
    assert failed["target"]["step"] is None
    # A run of 1.25 s over one of 1 s.
    assert rolling["cost"] == {
        "ratio": pytest.approx(1.25),
        "like": "SGD, B=32",
        "speed_up": pytest.approx(1.9 / 1.25),
    }
    assert plain["cost"] is half["cost"] is failed["cost"] is None


def test_sentences_say_who_what_and_whether_it_pays():
    result = everything()
    sooner, chosen, best, answer = result["sentences"]
    assert "RR rolling, B=32 in 0.50 times the steps and 0.62 times the time" in sooner
    assert "not by SGD, half step, B=32." in sooner
    assert "flattest end is that of SGD, half step, B=32 (sharpness 6" in chosen
    assert "the sharpest that of RR rolling, B=32 (12, 24)" in chosen
    # .93 - .90 is more than two errors of .0028.
    assert best == "Best test accuracy: RR rolling, B=32, 93 ± 0.2 %."
    assert answer == (
        "RR rolling, B=32: RR would pay here: 1.9 times less variance. Its step took 1.25 "
        "times as long as that of SGD, B=32: so 1.52 times as fast."
    )
    notes = " ".join(result["notes"])
    assert "the ends of SGD, B=32 (-0.5);" in notes
    assert "auto, B=32: Rolling took over at step 400." in notes
    assert "SGD, step 10, B=32 diverged: the loss is not finite any more." in notes


def test_ties_are_called_ties():
    rows = [row("a", "sgd", 3e-3, 1.0, 0.9), row("b", "rr", 3e-3, 1.0, 0.903)]
    assert training(rows)["sentences"][-1] == (
        "Best test accuracy: b, 90.3 ± 0.2 %; the others differ by less than two standard errors."
    )


def test_tables_hold_what_is_known():
    reached, chosen, gauged = tables(everything())
    assert [r[0] for r in reached.rows][-1] == "SGD, step 10, B=32"
    assert reached.rows[-1][3:] == ["–"] * 7
    assert reached.rows[2][-2:] == ["500", ".625"]
    assert chosen.rows[0][-2] == "no"
    assert chosen.rows[2][-2] == "–"
    assert gauged.rows == [
        ["RR rolling, B=32", "3.80", "2.00", "1.90(5)", "1.52(5)", "1.12", "1.25", "1.52", "yes"]
    ]
    alone = training([row("SGD, B=32", "sgd", 3e-3, 1.0, None)])
    (only,) = tables(alone)
    assert "test acc." not in only.header


@pytest.mark.parametrize("known", ["everything", "a regression"])
def test_the_page_is_whole_and_escaped(known, tmp_path):
    result = everything()
    if known == "a regression":
        result = training([row("SGD, B=32", "sgd", 3e-3, 1.0, None)])
        del result["configuration"]
    kept = copy.deepcopy(result)
    written = report.write(result, tmp_path)
    assert result == kept
    names = {path.name for path in written}
    expected = {"loss.svg", "test.svg", "report.html"}
    assert names == (expected | {"gauge.svg", "track.svg"} if known == "everything" else expected)
    page = (tmp_path / "report.html").read_text()
    assert "thalweg train &#39;&lt;digits&gt;.toml&#39; --track 1.0" in page
    assert "<digits>" not in page
    assert "<cross-entropy>" not in page


def test_accuracy_has_no_logarithm_and_losses_have():
    from matplotlib.figure import Figure

    loss, test, *_ = training_figures(everything())
    for drawing, scale in ((loss, "log"), (test, "linear")):
        figure = Figure()
        drawing.draw(figure)
        assert [axes.get_yscale() for axes in figure.axes] == [scale, scale]
        assert [axes.get_xlabel() for axes in figure.axes] == ["step k", "seconds"]
