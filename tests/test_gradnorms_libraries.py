"""Norms of per-sample gradients of models that other libraries build, against dense gradients."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import thalweg as tw
from helpers_gradnorms import assert_norms_equal, ways
from thalweg.errors import InputError

KEY = jax.random.key(5)


class ConvNet(nnx.Module):
    """Two convolutions with normalisation by running statistics, groups and channels."""

    def __init__(self, rngs):
        self.first = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.batch = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
        self.second = nnx.Conv(8, 12, (3, 3), strides=2, feature_group_count=2, rngs=rngs)
        self.group = nnx.GroupNorm(12, num_groups=3, rngs=rngs)
        self.last = nnx.Linear(12, 7, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.batch(self.first(x)))
        x = nnx.gelu(self.group(self.second(x)))
        return self.last(x.mean(axis=(1, 2)))


def filled(shapes):
    """Numbers in double precision for shapes: positive ones, which do for variances, too."""
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.05, 0.6, size=x.shape)), shapes)


def centred(shapes):
    """The same of either sign."""
    return jax.tree.map(lambda x: x - 0.3, filled(shapes))


def labelled(n, shape, classes=7):
    rng = np.random.default_rng(n)
    return jnp.asarray(rng.normal(size=(n, *shape))), jnp.asarray(rng.integers(0, classes, n))


def cross_entropy(logits, label):
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def nnx_loss(build):
    """The cross entropy of a module, and its parameters; nothing of its own start is computed."""
    graph, params, rest = nnx.split(nnx.eval_shape(build), nnx.Param, ...)
    params, rest = centred(params), filled(rest)

    def loss(params, sample):
        x, y = sample
        # Flax's own arithmetic mixes single and double precision.
        with jax.numpy_dtype_promotion("standard"):
            return cross_entropy(nnx.merge(graph, params, rest)(x[None])[0], y)

    return loss, params


def test_convolutions_of_flax_with_norm_layers_in_inference_mode():
    loss, params = nnx_loss(lambda: ConvNet(nnx.Rngs(0)))
    explanation = assert_norms_equal(loss, params, labelled(6, (10, 10, 3)))
    assert {k for k, way in ways(explanation).items() if way == "factors"} == {
        "first/kernel",
        "second/kernel",
        "last/kernel",
    }


class Block(eqx.Module):
    """A transformer block; the embedding is also what gives the logits."""

    embedding: eqx.nn.Embedding
    attention: eqx.nn.MultiheadAttention
    norms: list[eqx.nn.LayerNorm]
    mlp: eqx.nn.MLP

    def __init__(self, vocabulary, width, key):
        keys = jax.random.split(key, 3)
        self.embedding = eqx.nn.Embedding(vocabulary, width, key=keys[0])
        self.attention = eqx.nn.MultiheadAttention(2, width, key=keys[1])
        self.norms = [eqx.nn.LayerNorm(width) for _ in range(2)]
        self.mlp = eqx.nn.MLP(width, width, 3 * width, 1, jax.nn.gelu, key=keys[2])

    def __call__(self, tokens):
        x = jax.vmap(self.embedding)(tokens)
        h = jax.vmap(self.norms[0])(x)
        x = x + self.attention(h, h, h, mask=jnp.tri(len(tokens), dtype=bool))
        x = x + jax.vmap(self.mlp)(jax.vmap(self.norms[1])(x))
        return x @ self.embedding.weight.T


def test_transformer_block_of_equinox_with_tied_embedding():
    shapes = eqx.filter_eval_shape(Block, 50, 16, KEY)
    arrays, static = eqx.partition(shapes, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    params = centred(arrays)

    def loss(params, tokens):
        logits = eqx.combine(params, static)(tokens[:-1])
        return jnp.mean(cross_entropy(logits, tokens[1:]))

    # Repeated tokens, too: 11 of 50 in each sequence of which the last is only predicted.
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, 12, (5, 11)))
    explanation = assert_norms_equal(loss, params, tokens)
    found = {route.leaf: route for route in explanation.routes}
    assert "2 uses, 20 positions" in found["embedding/weight"].reason
    matrices = [leaf for leaf, route in found.items() if len(route.shape) == 2]
    assert len(matrices) == 7
    # The attention's matrices are no larger than the derivatives by their results.
    assert {found[leaf].way for leaf in matrices} <= {"factors", "differentiated"}
    assert all(found[k].way == "factors" for k in matrices if "mlp" in k or "embed" in k)


def test_recurrent_and_dense_layers_of_haiku():
    def forward(x):
        core = hk.LSTM(9)
        out, _ = hk.dynamic_unroll(core, x, core.initial_state(None))
        return hk.nets.MLP([11, 7], activation=jnp.tanh)(hk.LayerNorm(-1, True, True)(out[-1]))

    model = hk.without_apply_rng(hk.transform(forward))
    x, y = labelled(5, (6, 4))
    params = centred(jax.eval_shape(model.init, KEY, x[0]))

    def loss(params, sample):
        return cross_entropy(model.apply(params, sample[0]), sample[1])

    explanation = assert_norms_equal(loss, params, (x, y))
    assert all(w == "factors" for leaf, w in ways(explanation).items() if leaf.endswith("/w"))


@pytest.mark.parametrize(
    "name", ["mlp-batch-norm", pytest.param("vgg11_small", marks=pytest.mark.slow)]
)
def test_the_nets_of_this_project(name):
    if name == "vgg11_small":
        model, shape, state = tw.models.vgg11_small(), (32, 32, 3), None
    else:
        model = tw.models.mlp((9, 16, 16, 7), batch_norm=True, residual=True)
        shape, state = (9,), model.init_state(jnp.float64)
    params = model.init(KEY, jnp.float64)
    loss = tw.models.supervised(model, tw.models.cross_entropy, state)
    explanation = assert_norms_equal(loss, params, labelled(3, shape))
    assert all(w == "factors" for leaf, w in ways(explanation).items() if leaf.endswith("/w"))


def test_batch_statistics_are_refused():
    # Equinox: the layer needs the batch by the name of its axis.
    layer, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", mode="batch")
    params, static = eqx.partition(layer, eqx.is_inexact_array)

    def by_axis(params, x):
        return jnp.sum(eqx.combine(params, static)(x, state)[0])

    with pytest.raises(InputError, match=r"other samples of a batch.*inference mode"):
        tw.sample_gradient_norms(by_axis, params, jnp.ones((3, 4)))
    # Flax: the layer changes its running statistics.
    loss, params = nnx_loss(lambda: nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
    with pytest.raises(InputError, match=r"may change no state"):
        tw.sample_gradient_norms(loss, params, (jnp.ones((3, 4)), jnp.ones(3, int)))


def test_dropout_without_a_key_of_the_sample_is_refused():
    loss, params = nnx_loss(
        lambda: nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), nnx.Dropout(0.5))
    )
    with pytest.raises(InputError, match=r"dropout a key from the sample"):
        tw.sample_gradient_norms(loss, params, (jnp.ones((3, 4)), jnp.ones(3, int)))
