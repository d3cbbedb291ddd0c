"""The documents that problems come from, as one cites them."""

_DOCUMENTS = {
    "An": "J. An and L. Ying, Combining resampling and reweighting for faithful stochastic "
    "optimization, arXiv:2105.14694 (2021).",
    "Wu": "L. Wu, C. Ma and W. E, How SGD selects the global minima in over-parameterized "
    "learning: a dynamical stability perspective, Advances in Neural Information Processing "
    "Systems 31 (2018).",
    "Dai": "X. Dai and Y. Zhu, Towards theoretical understanding of large batch training in "
    "stochastic gradient descent, arXiv:1812.00542 (2018).",
    "Giselsson": "P. Giselsson, Stochastic gradient descent: qualitative convergence behavior, "
    "lecture slides.",
    "Wojtowytsch": "S. Wojtowytsch, Continuous time stochastic gradient descent and flat minimum "
    "selection, slides of a talk at the Simons Institute, 28 October 2021.",
}


def citations(source: str) -> list[str]:
    """The full references of the documents that a source names by their first authors."""
    words = source.replace(",", " ").replace(";", " ").split()
    return [reference for author, reference in _DOCUMENTS.items() if author in words]
