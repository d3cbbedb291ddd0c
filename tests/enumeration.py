"""Every draw a sampler can make on a small problem, with its probability: the slow truth.

A law is a pair (probabilities, estimates) of shapes (m,) and (m, d). Written with itertools from
what the samplers promise, without any of their code.
"""

import itertools

import numpy as np


def full(a, g):
    return np.ones(1), (a @ g)[None]


def subsets(g, size):
    """Uniform subsets, whose mean is the estimate."""
    chosen = [list(c) for c in itertools.combinations(range(len(g)), size)]
    return np.full(len(chosen), 1 / len(chosen)), np.array([g[c].mean(axis=0) for c in chosen])


def one_sample(p, w, g):
    """One sample, i with probability p_i and weight w_i."""
    return np.asarray(p), np.asarray(w)[:, None] * g


def mean_of(law, size):
    """The mean of independent draws from a law."""
    p, estimates = law
    many = list(itertools.product(range(len(p)), repeat=size))
    return (
        np.array([np.prod(p[list(c)]) for c in many]),
        np.array([estimates[list(c)].mean(axis=0) for c in many]),
    )


def fixed_groups(a, g, groups, f):
    """A group with probability f_j, a sample in it with probability a_i/A_j, weight A_j/f_j."""
    A = group_sums(a, groups)[groups]
    f = np.asarray(f)[groups]
    return one_sample(f * a / A, A / f, g)


def by_sample(a, g, uniform=0.0, scores=None, *, current=False):
    """Probabilities a_i r_i from scores; weights 1/r_i, of the current norms if asked."""
    s = norms(g)
    kept = s if scores is None else np.asarray(scores)
    ratio = (1 - uniform) * kept / (a @ kept) + uniform
    used = (1 - uniform) * s / (a @ kept) + uniform if current else ratio
    return one_sample(a * ratio, inverse(used), g)


def by_group(a, g, groups):
    """One sample in each group, then one of these with probability f_j ~ A_j |g_{i_j}|."""
    A = group_sums(a, groups)
    members = [np.flatnonzero(groups == j) for j in range(len(A))]
    probabilities, estimates = [], []
    for drawn in itertools.product(*members):
        drawn = list(drawn)
        together = np.prod(a[drawn] / A)
        scores = A * norms(g[drawn])
        f = scores / scores.sum() if scores.sum() > 0 else A
        for j, i in enumerate(drawn):
            probabilities.append(together * f[j])
            estimates.append((A[j] * g[i] / f[j]) if f[j] > 0 else 0 * g[i])
    return np.array(probabilities), np.array(estimates)


def moments(law):
    """Mean and covariance."""
    p, estimates = law
    mean = p @ estimates
    return mean, np.einsum("m,mi,mj->ij", p, estimates, estimates) - np.outer(mean, mean)


def norms(g):
    return np.linalg.norm(g, axis=1)


def inverse(x):
    return np.divide(1.0, x, out=np.zeros_like(x), where=x > 0)


def group_sums(a, groups):
    return np.bincount(groups, weights=a)
