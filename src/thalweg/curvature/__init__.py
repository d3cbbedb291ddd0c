r"""Curvature of the objective and of its samples, by products with vectors.

:math:`H = \sum_i a_i H_i` is the Hessian of the objective and :math:`\Sigma = \sum_i a_i H_i^2 -
H^2` says how much the Hessians :math:`H_i` of the samples differ. No matrix is stored: a product
with a vector costs a few gradients.
"""

from thalweg.curvature.density import SpectralDensity as SpectralDensity
from thalweg.curvature.density import spectral_density as spectral_density
from thalweg.curvature.eigenvalues import Eigenpairs as Eigenpairs
from thalweg.curvature.eigenvalues import nonuniformity as nonuniformity
from thalweg.curvature.eigenvalues import sharpness as sharpness
from thalweg.curvature.eigenvalues import top_eigenvalues as top_eigenvalues
from thalweg.curvature.gradients import fisher as fisher
from thalweg.curvature.gradients import gradient_covariance as gradient_covariance
from thalweg.curvature.hessians import gauss_newton as gauss_newton
from thalweg.curvature.hessians import hessian as hessian
from thalweg.curvature.hessians import hessian_product as hessian_product
from thalweg.curvature.hessians import sample_curvatures as sample_curvatures
from thalweg.curvature.operator import DENSE_SIZE as DENSE_SIZE
from thalweg.curvature.operator import Operator as Operator
from thalweg.curvature.operator import operator_at as operator_at
from thalweg.curvature.samples import SampleEstimates as SampleEstimates
from thalweg.curvature.samples import nonuniformity_operator as nonuniformity_operator
from thalweg.curvature.samples import nonuniformity_product as nonuniformity_product
from thalweg.curvature.samples import sample_frobenius as sample_frobenius
from thalweg.curvature.samples import sample_hessian_norms as sample_hessian_norms
from thalweg.curvature.samples import sample_traces as sample_traces
from thalweg.curvature.sums import Batches as Batches
from thalweg.curvature.traces import frobenius as frobenius
from thalweg.curvature.traces import trace as trace
from thalweg.estimate import Estimate as Estimate
