"""Beyond the documents: what their objects say once they are computed exactly.

The exact threshold of stability against the sufficient condition (4) is in ``wu-ma-e``, the
distance of SGD's law from its diffusion's by the step in ``dai-zhu/diffusion-limit``.
"""

from thalweg.papers.beyond.rate_function import rate_function
from thalweg.papers.beyond.when_rr_pays import when_rr_pays

ITEMS = ("rate function", "when RR pays")
EXPERIMENTS = (rate_function, when_rr_pays)

__all__ = ["EXPERIMENTS", "ITEMS", "rate_function", "when_rr_pays"]
