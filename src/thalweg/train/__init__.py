"""Training of networks with any sampler."""

from thalweg.train.auto import Auto as Auto
from thalweg.train.gauge import Gauge as Gauge
from thalweg.train.gauge import gauge as gauge
from thalweg.train.loop import train as train
from thalweg.train.objective import Objective as Objective
from thalweg.train.scoring import scorer as scorer
from thalweg.train.training import Training as Training
from thalweg.train.training import TrainingError as TrainingError
