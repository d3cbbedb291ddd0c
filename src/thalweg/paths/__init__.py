"""Paths of least action and quasi-potentials: how a dynamics leaves a minimum, and at what cost."""

from thalweg.paths.action_path import ActionPath as ActionPath
from thalweg.paths.action_path import minimum_action_path as minimum_action_path
from thalweg.paths.discrete_path import DiscretePath as DiscretePath
from thalweg.paths.discrete_path import minimum_discrete_path as minimum_discrete_path
from thalweg.paths.energy_path import EnergyPath as EnergyPath
from thalweg.paths.energy_path import minimum_energy_path as minimum_energy_path
from thalweg.paths.hamiltonian import hamiltonian as hamiltonian
from thalweg.paths.quasi_potential import Barrier as Barrier
from thalweg.paths.quasi_potential import QuasiPotential as QuasiPotential
from thalweg.paths.quasi_potential import quasi_potential as quasi_potential
