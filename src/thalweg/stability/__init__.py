r"""Linear stability of SGD at a minimum: which minima a step and a batch size allow.

Near a minimum where every sample's gradient vanishes, SGD with batches of B moves by
:math:`\theta \to (I - \eta H_B) \theta` with a random mean :math:`H_B` of B samples' Hessians
:math:`H_i`. Here :math:`H = \sum_i a_i H_i`, :math:`\Sigma = \sum_i a_i H_i^2 - H^2` and the batch
factor p is that of :func:`batch_factor`. Three conditions, each implying the next:

* Wu, Ma and E's condition (4), "How SGD selects the global minima" (2018),
  :math:`(I - \eta H)^2 + \eta^2 p \Sigma \le I`: sufficient, and in one dimension exact;
* stability in mean square, exactly: :func:`mean_square_threshold`;
* stability of almost every path: :func:`almost_sure_threshold`.

Where the samples' gradients do not vanish, the mean-square threshold decides whether the noise
around the minimum stays bounded (:func:`limit_covariance`).
"""

from thalweg.estimate import Estimate as Estimate
from thalweg.stability.almost_sure import almost_sure_threshold as almost_sure_threshold
from thalweg.stability.assessment import Assessment as Assessment
from thalweg.stability.assessment import assess as assess
from thalweg.stability.assessment import reassess as reassess
from thalweg.stability.batch_sharpness import batch_sharpness as batch_sharpness
from thalweg.stability.batches import batch_factor as batch_factor
from thalweg.stability.condition import Rectangle as Rectangle
from thalweg.stability.condition import rectangle as rectangle
from thalweg.stability.condition import sufficient_condition as sufficient_condition
from thalweg.stability.condition import sufficient_threshold as sufficient_threshold
from thalweg.stability.following import Followed as Followed
from thalweg.stability.following import follow as follow
from thalweg.stability.forms import StepBounds as StepBounds
from thalweg.stability.forms import largest_step as largest_step
from thalweg.stability.lyapunov import lyapunov_exponent as lyapunov_exponent
from thalweg.stability.mean_square import critical_batch as critical_batch
from thalweg.stability.mean_square import mean_square_radius as mean_square_radius
from thalweg.stability.mean_square import mean_square_threshold as mean_square_threshold
from thalweg.stability.moments import Bracket as Bracket
from thalweg.stability.orders import cyclic_radius as cyclic_radius
from thalweg.stability.orders import cyclic_threshold as cyclic_threshold
from thalweg.stability.orders import reshuffled_radius as reshuffled_radius
from thalweg.stability.orders import reshuffled_threshold as reshuffled_threshold
from thalweg.stability.regular import excess_loss as excess_loss
from thalweg.stability.regular import limit_covariance as limit_covariance
from thalweg.stability.span import SpanBracket as SpanBracket
from thalweg.stability.span import mean_square_bracket as mean_square_bracket
