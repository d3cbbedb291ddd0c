"""Samplers: how a stochastic gradient is drawn. One file each; the protocol is in ``base``."""

from thalweg.sampling.base import AbstractMemoryless as AbstractMemoryless
from thalweg.sampling.base import AbstractSampler as AbstractSampler
from thalweg.sampling.base import Draw as Draw
from thalweg.sampling.base import Moments as Moments
from thalweg.sampling.cyclic import Cyclic as Cyclic
from thalweg.sampling.full import Full as Full
from thalweg.sampling.minibatch import Minibatch as Minibatch
from thalweg.sampling.presampled import Presampled as Presampled
from thalweg.sampling.resampled import Resampled as Resampled
from thalweg.sampling.resampled import lipschitz_constants as lipschitz_constants
from thalweg.sampling.reshuffled import Reshuffled as Reshuffled
from thalweg.sampling.reweighted import Reweighted as Reweighted
from thalweg.sampling.rolling import Rolling as Rolling
from thalweg.sampling.scored import AbstractScored as AbstractScored
