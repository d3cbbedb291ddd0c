"""Section 3: probabilities that are kept for many iterations, on the classification problem."""

from typing import Any

import thalweg as tw
from thalweg.papers.an_ying.common import ends_in
from thalweg.papers.checks import above, below, both
from thalweg.papers.estimates import Share
from thalweg.papers.experiment import Setting, experiment
from thalweg.papers.outcome import Claim, Outcome, Panel, Picture, Series

_REFRESH = (1, 10, 100, 1000)
_ETAS = (0.005, 0.015)
_TREATMENTS = {
    "rr": ("weights of the draw (unbiased)", "unbiased"),
    "rr-fixed": ("steps of fixed length (biased)", "fixed-length"),
}

Shares = dict[str, dict[tuple[float, int], Share]]


@experiment(
    "an-ying/staleness",
    "Probabilities kept for 10 to 1000 iterations: unbiased weights lose the sharp well",
    covers=("section 3, kept probabilities",),
    seconds=(35, 200),
)
def staleness(setting: Setting) -> Outcome:
    """Shares in the sharp well after 3000 iterations, by refresh, treatment and step."""
    landscape = tw.landscapes.robust_classification()
    chains = setting.choose(32, 400)
    shares: Shares = {family: {} for family in _TREATMENTS}
    plain: dict[float, Share] = {}
    for eta in _ETAS:
        plain[eta] = _share(landscape, tw.Minibatch(1), eta, chains, setting, f"SGD, {eta}")
        for refresh in _REFRESH:
            for family, (label, stale) in _TREATMENTS.items():
                if refresh == 1 and family == "rr-fixed":
                    # Fresh probabilities: both treatments are the same.
                    shares[family][eta, 1] = shares["rr"][eta, 1]
                    continue
                sampler = tw.Reweighted(1, refresh=refresh, stale=stale)
                # Fresh norms of all samples at each step are dear, and their answer is plain.
                count = chains // 2 if refresh == 1 else chains
                label = f"{label}, {eta}, {refresh}"
                shares[family][eta, refresh] = _share(
                    landscape, sampler, eta, count, setting, label
                )
    tables: dict[str, dict[str, Any]] = {}
    for eta in _ETAS:
        table: dict[str, Any] = {"refresh": _REFRESH}
        for family, row in shares.items():
            table[family] = [row[eta, refresh].value for refresh in _REFRESH]
            table[f"{family} error"] = [row[eta, refresh].error for refresh in _REFRESH]
        table["sgd"] = [plain[eta].value] * len(_REFRESH)
        tables[f"{eta}"] = table
    return Outcome(_claims(shares, plain), tables, [_picture()])


def _share(
    landscape: tw.Landscape, sampler: Any, eta: float, chains: int, setting: Setting, label: str
) -> Share:
    run = tw.simulate(
        tw.Descent(landscape.problem, sampler, eta),
        landscape.start,
        steps=landscape.steps,
        key=setting.key,
        chains=chains,
        progress=setting.progress_of(label),
    )
    return ends_in(landscape, run.params)


def _claims(shares: Shares, plain: dict[float, Share]) -> list[Claim]:
    small, large = _ETAS
    unbiased, fixed = shares["rr"], shares["rr-fixed"]

    def kept(rows: dict[tuple[float, int], Share], refresh: int, bound: float = 0.9) -> Any:
        share = rows[large, refresh]
        return above(share.value, bound, error=share.error)

    def lost(refresh: int, bound: float = 0.3) -> Any:
        share = unbiased[large, refresh]
        return below(share.value, bound, error=share.error)

    worst = min((unbiased[small, refresh] for refresh in _REFRESH), key=lambda s: s.value)
    return [
        Claim(
            "section 3",
            "with fresh probabilities at every step RR stays in the sharp well, η = .015",
            kept(unbiased, 1, 0.75),
        ),
        Claim(
            "section 3",
            "probabilities and weights can be kept for multiple iterations, say 100: RR still "
            "stays, η = .015 (weights of the draw)",
            both(kept(unbiased, 10), kept(unbiased, 100)),
            both(kept(fixed, 10), kept(fixed, 100)),
            reading="the drawn sample is divided by its *current* norm, a step of the kept length: "
            "biased. With the weights of the draw, which are unbiased, the benefit is lost",
        ),
        Claim(
            "section 3",
            "with unbiased weights and a refresh of 10 or 100 the sharp well is lost (1.00 to .00)",
            both(lost(10), lost(100)),
        ),
        Claim(
            "section 3",
            "at η = .005, where SGD stays, unbiased kept weights are worse than SGD",
            below(worst.value - plain[small].value, 0.0, error=worst.error),
        ),
        Claim(
            "section 3",
            "steps of fixed length stay for refresh 1000, too",
            kept(fixed, 1000, 0.8),
        ),
    ]


def _picture() -> Picture:
    def panel(eta: float, labelled: bool) -> Panel:
        series = [
            Series(f"{eta}", "refresh", f, label * labelled, f, "points", error=f"{f} error")
            for f, (label, _) in _TREATMENTS.items()
        ]
        series.append(Series(f"{eta}", "refresh", "sgd", "SGD" * labelled, "sgd", dashed=True))
        return Panel(
            "iterations of a refresh",
            "share in the sharp well",
            series,
            title=f"η = {eta}",
            log="x",
            limits=(-0.05, 1.05),
        )

    return Picture(
        "staleness",
        "Robust classification from θ = -.5, 3000 iterations: who is in the sharp well when norms "
        "are taken every so many iterations only.",
        [panel(eta, eta == _ETAS[0]) for eta in _ETAS],
    )
