"""A plain function of one's own: softmax regression, by SGD and by RR, measured and compared."""

import jax
import jax.numpy as jnp
import optax

import thalweg as tw

STEPS = 1000
digits = tw.datasets.load("digits").train
samples = digits.x.reshape(-1, 64), digits.y


def loss(params, sample):
    """The cross-entropy of one sample (image, label)."""
    image, label = sample
    return tw.models.cross_entropy(image @ params["w"] + params["b"], label)


start = {"w": jnp.zeros((64, 10), jnp.float32), "b": jnp.zeros(10, jnp.float32)}

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
