"""An Equinox model of one's own, trained by SGD and by RR, measured and compared."""

import equinox as eqx
import jax
import optax

import thalweg as tw

STEPS = 300
digits = tw.datasets.load("digits").train
samples = digits.x.reshape(-1, 64)[:500], digits.y[:500]
net = eqx.nn.MLP(64, 10, width_size=32, depth=1, key=jax.random.key(0))
start, rest = eqx.partition(net, eqx.is_inexact_array)


def loss(params, sample):
    """The cross-entropy of one sample (image, label)."""
    image, label = sample
    return tw.models.cross_entropy(eqx.combine(params, rest)(image), label)


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
