"""What is trained: data, net, steps, and what is made harder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

_SAMPLERS = {
    "SGD": 'name = "sgd"',
    "half step": 'name = "sgd"\nstep = {half}',
    "fresh": 'name = "rr"\nrefresh = 1',
    "rolling": 'name = "rolling"',
    "presampled": 'name = "presampled"\ncandidates = 3',
    "auto": 'name = "auto"\nevery = {every}',
}


@dataclass(frozen=True)
class Setting:
    """A training of all samplers.

    Attributes:
        data: The table [data].
        model: The table [model].
        loss: By name.
        step: Of SGD, in the middle of those at which it learns well.
        steps: How many.
        batch: Samples a step.
        seeds: How many.
        looks: At the test loss, along a run.
        assessed: Whether the curvature of the ends is measured.
        samplers: Which of them.
        harder: A word for what is made harder.
    """

    data: str
    model: str
    loss: str
    step: float
    steps: int
    batch: int = 32
    seeds: int = 5
    looks: int = 40
    assessed: bool = True
    samplers: Sequence[str] = tuple(_SAMPLERS)
    harder: str = ""

    def text(self, quick: bool) -> str:
        """The file for ``thalweg train``."""
        steps = self.steps // 10 if quick else self.steps
        every = max(1, steps // self.looks)
        numbers = {"half": self.step / 2, "every": every}
        rows = [
            f"[[sampler]]\n{_SAMPLERS[name].format(**numbers)}\nbatch = {self.batch}\n"
            for name in self.samplers
        ]
        return "\n".join(
            [
                f'loss = "{self.loss}"\nsteps = {steps}\nseeds = {2 if quick else self.seeds}',
                f"evaluate_every = {every}\n",
                f"[data]\n{self.data}\n",
                f"[model]\n{self.model}\n",
                f'[optimizer]\nname = "sgd"\nstep = {self.step}\n',
                *rows,
                "[assess]\nsamples = 500\n" if self.assessed else "[assess]\nseeds = 0\n",
            ]
        )


def _with_harder(name: str, setting: Setting) -> dict[str, Setting]:
    """The setting as it is; with wrong labels; with losses of unequal scale."""
    scaled = 'scale = {share = 0.05, factor = 10.0, of = "losses"}'
    # Ten times the loss of some needs a shorter step.
    shorter = setting.step / 2
    return {
        name: setting,
        f"{name}-noisy": replace(
            setting, data=f"{setting.data}\nnoise = 0.2", harder="a fifth of the labels wrong"
        ),
        f"{name}-scaled": replace(
            setting,
            data=f"{setting.data}\n{scaled}",
            step=shorter,
            harder="a twentieth of the losses ten times as large",
        ),
    }


_IMAGES = 'kind = "mlp"\nhidden = [64, 64]'
SETTINGS = {
    **_with_harder(
        "mnist", Setting('name = "mnist"\nsamples = 4000', _IMAGES, "cross-entropy", 0.1, 2000)
    ),
    **_with_harder(
        "fashion-mnist",
        Setting('name = "fashion-mnist"\nsamples = 4000', _IMAGES, "cross-entropy", 0.1, 2000),
    ),
    **_with_harder("a9a", Setting('name = "a9a"', 'kind = "linear"', "logistic", 0.2, 2000)),
    "california": Setting(
        'name = "california-housing"', 'kind = "mlp"\nhidden = [32]', "huber", 0.05, 3000
    ),
    "california-scaled": Setting(
        'name = "california-housing"\nscale = {share = 0.05, factor = 10.0, of = "losses"}',
        'kind = "mlp"\nhidden = [32]',
        "huber",
        0.025,
        3000,
        harder="a twentieth of the losses ten times as large",
    ),
    # The net of the table in benchmarks/training, on everything there is.
    "mnist-whole": Setting(
        'name = "mnist"',
        'kind = "mlp"\nhidden = [500, 500, 500]',
        "cross-entropy",
        0.1,
        2000,
        batch=128,
        seeds=3,
        samplers=("SGD", "half step", "rolling", "presampled", "auto"),
    ),
    # A step of a convolutional net takes long, and looks and curvature as well.
    "cifar10": Setting(
        'name = "cifar10"\nclasses = [0, 1]\nsamples = 1900',
        'kind = "vgg11-small"',
        "cross-entropy",
        0.05,
        100,
        batch=64,
        seeds=3,
        looks=10,
        assessed=False,
        samplers=("SGD", "rolling", "presampled"),
    ),
}
