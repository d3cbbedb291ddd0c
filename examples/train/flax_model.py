"""A Flax NNX model of one's own, trained by SGD and by RR, measured and compared."""

import jax
import optax
from flax import nnx

import thalweg as tw

STEPS = 300
digits = tw.datasets.load("digits").train
samples = digits.x.reshape(-1, 64)[:500], digits.y[:500]
rngs = nnx.Rngs(0)
net = nnx.Sequential(nnx.Linear(64, 32, rngs=rngs), nnx.relu, nnx.Linear(32, 10, rngs=rngs))
graph, start = nnx.split(net)
start = nnx.to_pure_dict(start)


def loss(params, sample):
    """The cross-entropy of one sample (image, label)."""
    image, label = sample
    state = nnx.state(net)
    nnx.replace_by_pure_dict(state, params)
    return tw.models.cross_entropy(nnx.merge(graph, state)(image), label)


for sampler in (tw.Minibatch(32), tw.Rolling(32)):
    run = tw.train(
        loss,
        start,
        samples,
        sampler=sampler,
        optimizer=optax.sgd(0.1),
        steps=STEPS,
        key=jax.random.key(0),
        gauge_every=STEPS // 2,
    )
    end = tw.stability.assess(tw.FiniteSum(loss, samples), run.params, batch_size=32, step=0.1)
    print(f"{type(sampler).__name__}: loss {end.loss:.3f}, sharpness {end.sharpness:.2f}")
    print(run.gauges[-1].sentence)
