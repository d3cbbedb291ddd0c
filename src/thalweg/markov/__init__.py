"""Dynamics on grids: generators, transition matrices, and one set of questions for both."""

from thalweg.markov.current import Flux as Flux
from thalweg.markov.distances import total_variation as total_variation
from thalweg.markov.distances import wasserstein as wasserstein
from thalweg.markov.distances import weighted_l2 as weighted_l2
from thalweg.markov.evolution import Evolution as Evolution
from thalweg.markov.exits import Committor as Committor
from thalweg.markov.exits import ExitTime as ExitTime
from thalweg.markov.generator import generator as generator
from thalweg.markov.grid import Grid as Grid
from thalweg.markov.jumps import Jumps as Jumps
from thalweg.markov.lattice import lattice as lattice
from thalweg.markov.markov_grid import MarkovGrid as MarkovGrid
from thalweg.markov.markov_grid import discretise as discretise
from thalweg.markov.modes import Gap as Gap
from thalweg.markov.modes import Modes as Modes
from thalweg.markov.quasistationary import QuasiStationary as QuasiStationary
from thalweg.markov.refinement import SolveError as SolveError
from thalweg.markov.stationary import Stationary as Stationary
from thalweg.markov.transfer import transfer as transfer
