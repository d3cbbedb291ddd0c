"""Escape from a minimum: rates, mean times and the splitting of rare paths."""

from thalweg.escape.exits import ExitPoints as ExitPoints
from thalweg.escape.exits import exit_points as exit_points
from thalweg.escape.jump_process import JumpProcess as JumpProcess
from thalweg.escape.jump_process import jump_process as jump_process
from thalweg.escape.kramers import eyring_kramers as eyring_kramers
from thalweg.escape.kramers import kramers_law as kramers_law
from thalweg.escape.laplace import LaplaceWeights as LaplaceWeights
from thalweg.escape.laplace import box_probabilities as box_probabilities
from thalweg.escape.laplace import laplace_weights as laplace_weights
from thalweg.escape.line import LineExit as LineExit
from thalweg.escape.line import exit_time_on_line as exit_time_on_line
from thalweg.escape.rate import Rate as Rate
from thalweg.escape.rate import in_parallel as in_parallel
from thalweg.escape.splitting import Splitting as Splitting
from thalweg.escape.splitting import splitting as splitting
from thalweg.escape.survival import ExitTimes as ExitTimes
from thalweg.escape.survival import exit_times as exit_times
