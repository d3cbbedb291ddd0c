"""Results as a comparison saves them, made by hand: three landscapes and a network."""

import numpy as np

STEPS = np.arange(0, 1001, 50)
TO_FLAT = {"sharp, global": (0.0, 0.0), "flat": (1.0, 1e-9)}
TO_SHARP = {"sharp, global": (0.9993, 2e-5), "flat": (0.0007, 2e-5)}
HALF = {"sharp, global": (0.462, 0.004), "flat": (0.538, 0.004)}


def share(minimum, fraction, trials=200):
    return {
        "minimum": minimum,
        "fraction": fraction,
        "error": float(np.sqrt(fraction * (1 - fraction) / trials)),
    }


def band(mean, width):
    mean = np.asarray(mean, dtype=float)
    return {
        "mean": mean.tolist(),
        "low": (mean * (1 - width)).tolist(),
        "high": (mean * (1 + width)).tolist(),
    }


def row(label, family, **more):
    """A row of a landscape that knows as little as a row may."""
    return {
        "label": label,
        "family": family,
        "batch_size": 1,
        "step": "0.04",
        "steps": 1000,
        "trials": 1 if family == "gd" else 200,
        "unbiased": family != "rr-fixed",
        "ends": None,
        "stayed": None,
        "diverged": 0.0,
        "loss": {"mean": 0.0513, "error": 0.0 if family == "gd" else 0.0016},
        "test_accuracy": None,
        "distance": {"mean": 1.25, "error": 0.02},
        "sharpness": None,
        "nonuniformity": None,
        "largest_step": None,
        "predicted": None,
        "stable": None,
        "evaluations": 1.4e6,
        "steps_per_second": None,
        "curves": {"step": STEPS.tolist(), "loss": band(0.05 + np.exp(-STEPS / 100), 0.2)},
        "sharpness_curve": None,
        "paths": [],
        "path_steps": [],
        "end_points": [],
        "grid": None,
        "escape": None,
        **more,
    }


def predicted(chain, limit, density=None, remark=None):
    """What the grid has to say of a row, as {minimum: (fraction, error)} by both routes."""

    def route(ends, law):
        listed = ends and [
            {"minimum": name, "fraction": f, "error": e} for name, (f, e) in ends.items()
        ]
        exits = {"steps": 340.26 if ends else None, "error": 1.2 if ends else None, "remark": None}
        said = None if ends else remark
        return {"ends": listed, "stationary": law, "remark": said, "exit": exits}

    return {"sgd": route(chain, density), "diffusion": route(limit, density)}


def escape(simulated, limit, law=None, by="direct", **more):
    """The answers to how long the start's minimum is kept; pairs are (steps, error)."""

    def cell(found):
        steps, error = found or (None, None)
        return {"steps": steps, "error": error, "by": by if found else None, "remark": None}

    known = {"steps": law, "error": None, "by": "law", "valid": False, "remark": "too hot"}
    known["exponent"] = None if law is None else 2.25
    return {"sgd": cell(simulated), "diffusion": cell(limit), "law": known, **more}


def result(kind, title, rows, **more):
    return {
        "schema": "thalweg.compare/1",
        "kind": kind,
        "title": title,
        "source": "An and Ying, section 2, figure 1",
        "description": "2 terms, 200 chains a sampler",
        "arguments": {"problem": title, "samplers": ["sgd", "rr"], "starts": "common", "seed": 0},
        "environment": {"thalweg": "0.1.0", "jax": "0.10.2", "device": "cpu"},
        "problem": {"name": title, "n": 2, "parameters": 1, "reading": {"kinks": "from the left"}},
        "rows": rows,
        "minima": [],
        "saddles": [],
        "merges": [],
        "confidence": None,
        "local": False,
        "paths": [],
        "start": dict.fromkeys(
            (
                *("params", "loss", "test_accuracy", "sharpness", "nonuniformity"),
                *("largest_step", "largest_step_gd"),
            )
        ),
        "surface": None,
        "sentences": ["RR stays where it starts.", "SGD leaves the sharp minimum."],
        "notes": ["(4) is sufficient."],
        **more,
    }


def minimum(name, params, value, start=False, **more):
    unknown = ("sharpness", "nonuniformity", "largest_step", "largest_step_gd")
    return {
        "name": name,
        "params": params,
        "value": value,
        "start": start,
        **dict.fromkeys((*unknown, "mean_sample_gradient")),
        **more,
    }


def line_result():
    """A landscape of one dimension with two minima that are kinks."""
    x = np.linspace(-2, 1, 61)
    f = np.minimum(np.abs(x + 1) - 0.34, 3 * np.abs(x - 0.2) - 0.592)
    theta = 0.2 + 0.1 * np.sin(STEPS / 70)
    well = np.exp(-50 * (np.linspace(-2, 1, 40) + 1) ** 2)
    rows = [
        row(
            label,
            family,
            ends=[share("sharp, global", kept), share("flat", 1 - kept)],
            stayed={"fraction": kept, "error": 0.0},
            paths=[[[v] for v in (theta - 1.2 * (kept < 0.5) * (STEPS > 300)).tolist()]] * 2,
            path_steps=STEPS.tolist(),
            end_points=[[0.2], [0.25], [5.0]] if kept > 0.5 else [[-1.0], [-1.1]],
            grid=grid,
            escape=answers,
        )
        for label, family, kept, grid, answers in (
            ("GD", "gd", 1.0, None, None),
            (
                *("SGD, B=1", "sgd", 0.0, predicted(TO_FLAT, TO_FLAT, well.tolist())),
                escape((336.3, 5.1), (152.0, 9.0), 113.2),
            ),
            (
                *("SGD, half step, B=1", "sgd-half", 1.0),
                *(
                    predicted(TO_SHARP, HALF, well.tolist()),
                    escape((1.67e5, None), None, by="bound"),
                ),
            ),
            (
                *("RR, B=1", "rr", 0.945, predicted(None, None, remark="RR keeps scores")),
                escape((1.62e7, 9e5), (1.02e9, 8e7), 9.9e8, by="split"),
            ),
        )
    ]
    return result(
        "landscape",
        "piecewise-linear",
        rows,
        minima=[
            minimum("sharp, global", [0.2], -0.592, start=True),
            minimum("flat", [-1.0], -0.34),
        ],
        saddles=[{"name": "top", "params": [0.0], "value": 0.0}],
        start=result("", "", [])["start"] | {"params": [0.25], "loss": -0.44},
        surface={"kind": "line", "x": x.tolist(), "f": f.tolist()},
    )


def plane_result():
    """A landscape of two dimensions, five minima, one sampler diverging, the range huge."""
    x, y = np.linspace(-1.5, 1.5, 30), np.linspace(-1, 1, 20)
    f = (x[None] ** 2 - 1) ** 2 * 100 + y[:, None] ** 2
    names = ["global", "second", "third", "fourth", "fifth"]
    places = np.linspace(-1, 1, 5)
    cloud = np.exp(-4 * np.add.outer(np.linspace(-1.5, 1.5, 12) ** 2, np.linspace(-1, 1, 12) ** 2))
    rows = []
    for label, family, fractions in (
        ("GD", "gd", (1, 0, 0, 0, 0)),
        ("SGD, B=1", "sgd", (0, 0.5, 0.25, 0.125, 0.125)),
        ("RR by group, B=1", "rr-group", (0.945, 0.025, 0.02, 0.01, 0)),
    ):
        lost = [[None, None], [3.0, 3.0]] if family == "sgd" else [[-1.0, 0.0]]
        rows.append(
            row(
                label,
                family,
                step="0.002 to 1e-05",
                ends=[share(n, p) for n, p in zip(names, fractions, strict=True)],
                diverged=0.02 if family == "sgd" else 0.0,
                sharpness={"mean": 1017.05, "error": 0.0},
                nonuniformity={"mean": 1752.482, "error": 0.0},
                stable="undecided",
                steps_per_second=2149155.0,
                paths=[[[-0.9, 0.5], [-0.95, 0.2], *lost]],
                path_steps=[0, 10, 20, 30][: 2 + len(lost)],
                end_points=[[-1.0, 0.0], [0.9, 0.1], *lost],
                grid=None
                if family == "gd"
                else predicted({"global": (0.7, 0.2)}, {"global": (0.01, 0.02)}, cloud.tolist()),
            )
        )
    about = {"sharpness": 800.0, "nonuniformity": 90.5, "largest_step": 4.95446e-4}
    about |= {"largest_step_gd": 0.0025, "mean_sample_gradient": 13.9}
    return result(
        "landscape",
        "mueller-brown",
        rows,
        minima=[
            minimum(n, [float(p), 0.0], i - 40.0, start=i == 0, **about)
            for i, (n, p) in enumerate(zip(names, places, strict=True))
        ],
        saddles=[{"name": "pass", "params": [0.0, 0.0], "value": 100.0}],
        start=result("", "", [])["start"] | {"params": [-0.9, 0.5], "loss": 4.0},
        surface={
            **{"kind": "plane", "x": x.tolist(), "y": y.tolist(), "f": f.tolist()},
            **{"points": [], "x_label": "θ₁", "y_label": "θ₂"},
        },
    )


def high_result():
    """A landscape of ten dimensions: neither minima nor a surface."""
    rows = [row("GD", "gd"), row("SGD, B=1", "sgd", loss={"mean": None, "error": None})]
    return result("landscape", "robust-regression", rows)


def network_result():
    """A network with the widest labels there are."""
    rows = []
    for place, (label, family, sharp) in enumerate(
        (
            ("GD", "gd", 9.91),
            ("SGD, B=32", "sgd", 6.21),
            ("SGD, B=8", "sgd", 3.42),
            ("SGD, B=4", "sgd", 2.41),
            ("SGD, half step, B=8", "sgd-half", 6.11),
            ("RR, B=8", "rr", 3.3),
            ("RR fixed length, B=32", "rr-fixed", 4.75),
        )
    ):
        curve = sharp + (9.8 - sharp) * np.exp(-STEPS / 200)
        gd, rr = family == "gd", family.startswith("rr")
        error = 0.0 if gd else 0.1
        rows.append(
            row(
                label,
                family,
                step="0.1" if family == "sgd-half" else "0.2",
                trials=1 if gd else 4,
                stayed={"fraction": 1.0 if gd else 0.25, "error": error},
                test_accuracy={"mean": 0.951, "error": error / 50},
                distance={"mean": 1.429, "error": error / 9},
                sharpness={"mean": sharp, "error": error / 1.5},
                nonuniformity={"mean": 15.1 + place, "error": error},
                largest_step=None if rr else {"mean": 0.1836, "error": error / 120},
                predicted=None if rr else "undecided" if family == "sgd-half" else "leaves",
                stable=None if rr else "yes",
                steps_per_second=928.7,
                sharpness_curve={"step": STEPS.tolist(), **band(curve, 0.05)},
            )
        )
    x = np.linspace(-1, 6, 12)
    f = 0.04 * np.exp((x[None] - 1) ** 2 / 4 + x[:, None] ** 2 / 9)
    points = [{"label": "start", "x": 0.0, "y": 0.0, "family": "start"}]
    points += [
        {"label": r["label"], "x": 0.6 * i, "y": 0.3 * (i % 3), "family": r["family"]}
        for i, r in enumerate(rows)
    ]
    known = {"loss": 0.0386, "test_accuracy": 0.947, "sharpness": 9.81, "nonuniformity": 23.0}
    known |= {"largest_step": {"B=32": 0.175, "B=4": 0.0838}, "largest_step_gd": 0.204}
    return result(
        "network",
        "digits: a 64-32-10 ReLU net",
        rows,
        arguments={"problem": "digits", "quick": True, "samplers": None, "data": None},
        source="Wu, Ma, E (2018): escape from minima",
        problem={"name": "digits", "n": 1437, "parameters": 2410, "reading": {}},
        start={"params": None, **known},
        surface={
            **{"kind": "plane", "x": x.tolist(), "y": x.tolist(), "f": f.tolist()},
            **{"points": points, "x_label": "distance towards SGD", "y_label": "the other way"},
        },
    )
