"""Scores of samples against derivatives taken sample by sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thalweg import models
from thalweg.errors import InputError
from thalweg.train.objective import Objective
from thalweg.train.scoring import SCORES, scorer

MODEL = models.mlp([6, 5, 3], batch_norm=True)
OBJECTIVE = Objective.of_model(MODEL, models.cross_entropy)
GENERATOR = np.random.default_rng(2)
X, Y = GENERATOR.normal(size=(7, 6)), GENERATOR.integers(0, 3, 7)
PARAMS = MODEL.init(jax.random.key(4), jnp.float64)
# Statistics that are not those of a fresh model.
STATE = jax.tree.map(lambda x: x + 0.3, MODEL.init_state(jnp.float64))


def one_by_one(kind):
    scores = []
    for x, y in zip(X, Y, strict=True):
        z = MODEL.apply(PARAMS, x, STATE)
        if kind == "loss":
            score = models.cross_entropy(z, y)
        elif kind == "logit":
            # The derivative of cross-entropy: probabilities less the unit vector of the label.
            score = np.linalg.norm(jax.nn.softmax(z) - np.eye(3)[y])
        else:
            gradient = jax.grad(
                lambda p, x=x, y=y: models.cross_entropy(MODEL.apply(p, x, STATE), y)
            )(PARAMS)
            score = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
        scores.append(float(score))
    return scores


@pytest.mark.parametrize("kind", SCORES)
def test_scores_are_those_of_single_samples(kind):
    score = scorer(OBJECTIVE, kind)
    got = jax.jit(score)(PARAMS, STATE, (X, Y))
    # Some hundred operations on numbers of size one.
    np.testing.assert_allclose(got, one_by_one(kind), rtol=1e-12)


def test_equal_scorers_share_programs():
    again = scorer(Objective.of_model(models.mlp([6, 5, 3], batch_norm=True), models.cross_entropy))
    assert again == scorer(OBJECTIVE, "gradient")
    assert hash(again) == hash(scorer(OBJECTIVE))
    assert again != scorer(OBJECTIVE, "loss")


@pytest.mark.parametrize("kind", SCORES)
def test_half_precision_is_scored_in_single(kind):
    score = scorer(OBJECTIVE.computed_in(jnp.bfloat16), kind)
    low = jax.tree.map(lambda x: x.astype(jnp.float32), (PARAMS, STATE))
    got = jax.eval_shape(score, *low, (jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.int32)))
    assert got.dtype == jnp.float32


def test_scores_of_a_negative_loss_are_no_less_than_zero():
    score = scorer(Objective.of(lambda params, sample: params - sample), "loss")
    got = score(jnp.asarray(1.0), (), jnp.asarray([0.5, 3.0]))
    assert got.tolist() == [0.5, 2.0]


def test_refuses():
    with pytest.raises(InputError, match="did you mean 'logit'"):
        scorer(OBJECTIVE, "logits")
    with pytest.raises(InputError, match=r"outputs are known; make it with Objective\.of_model"):
        scorer(Objective.of(lambda params, sample: params * sample), "logit")
