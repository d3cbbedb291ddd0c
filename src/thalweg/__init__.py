"""Which minimum does stochastic gradient descent select, why, and how do you change it?"""

import importlib
from typing import Any

from thalweg import curvature as curvature
from thalweg import datasets as datasets
from thalweg import escape as escape
from thalweg import landscapes as landscapes
from thalweg import manifolds as manifolds
from thalweg import markov as markov
from thalweg import models as models
from thalweg import noise_models as noise_models
from thalweg import paths as paths
from thalweg import sampling as sampling
from thalweg import stability as stability
from thalweg import steps as steps
from thalweg import stopping as stopping
from thalweg.critical import CriticalGraph as CriticalGraph
from thalweg.critical import CriticalPoint as CriticalPoint
from thalweg.critical import basin as basin
from thalweg.critical import critical_point as critical_point
from thalweg.critical import critical_points as critical_points
from thalweg.critical import minima as minima
from thalweg.diffusion import Diffusion as Diffusion
from thalweg.dynamics import Descent as Descent
from thalweg.errors import InputError as InputError
from thalweg.escape import exit_points as exit_points
from thalweg.escape import exit_times as exit_times
from thalweg.escape import eyring_kramers as eyring_kramers
from thalweg.escape import splitting as splitting
from thalweg.gradnorms import sample_gradient_norms as sample_gradient_norms
from thalweg.gradnorms import squared_gradient_norms as squared_gradient_norms
from thalweg.landscapes import Landscape as Landscape
from thalweg.limit import corrected_potential as corrected_potential
from thalweg.limit import diffusion_limit as diffusion_limit
from thalweg.limit import modified_equation as modified_equation
from thalweg.markov import Grid as Grid
from thalweg.markov import MarkovGrid as MarkovGrid
from thalweg.markov import discretise as discretise
from thalweg.paths import minimum_action_path as minimum_action_path
from thalweg.paths import minimum_discrete_path as minimum_discrete_path
from thalweg.paths import minimum_energy_path as minimum_energy_path
from thalweg.paths import quasi_potential as quasi_potential
from thalweg.problem import FiniteSum as FiniteSum
from thalweg.record import Record as Record
from thalweg.run import Run as Run
from thalweg.sampling import Cyclic as Cyclic
from thalweg.sampling import Full as Full
from thalweg.sampling import Minibatch as Minibatch
from thalweg.sampling import Presampled as Presampled
from thalweg.sampling import Resampled as Resampled
from thalweg.sampling import Reshuffled as Reshuffled
from thalweg.sampling import Reweighted as Reweighted
from thalweg.sampling import Rolling as Rolling
from thalweg.sampling import lipschitz_constants as lipschitz_constants
from thalweg.simulate import simulate as simulate
from thalweg.train import Auto as Auto
from thalweg.train import Objective as Objective
from thalweg.train import Training as Training
from thalweg.train import TrainingError as TrainingError
from thalweg.train import train as train


def __getattr__(name: str) -> Any:
    """``thalweg.papers`` when it is first asked for: its programs are written on all the rest."""
    if name == "papers":
        return importlib.import_module("thalweg.papers")
    raise AttributeError(f"module 'thalweg' has no attribute {name!r}")
