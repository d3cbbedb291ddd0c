"""Which minimum does stochastic gradient descent select, why, and how do you change it?"""

from thalweg import sampling as sampling
from thalweg import steps as steps
from thalweg import stopping as stopping
from thalweg.dynamics import Descent as Descent
from thalweg.errors import InputError as InputError
from thalweg.gradnorms import sample_gradient_norms as sample_gradient_norms
from thalweg.problem import FiniteSum as FiniteSum
from thalweg.record import Record as Record
from thalweg.run import Run as Run
from thalweg.sampling import Cyclic as Cyclic
from thalweg.sampling import Full as Full
from thalweg.sampling import Minibatch as Minibatch
from thalweg.sampling import Resampled as Resampled
from thalweg.sampling import Reshuffled as Reshuffled
from thalweg.sampling import Reweighted as Reweighted
from thalweg.sampling import lipschitz_constants as lipschitz_constants
from thalweg.simulate import simulate as simulate
