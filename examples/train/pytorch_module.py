"""A PyTorch module of one's own, through torchax, by SGD and by RR, measured and compared."""

import jax
import optax
import torch
import torchax

import thalweg as tw

STEPS = 300
digits = tw.datasets.load("digits").train
samples = digits.x.reshape(-1, 64)[:500], digits.y[:500]
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
states, apply = torchax.extract_jax(net.eval())
start = {name: states[name] for name, _ in net.named_parameters()}
buffers = {name: value for name, value in states.items() if name not in start}


def loss(params, sample):
    """The cross-entropy of one sample (image, label)."""
    image, label = sample
    return tw.models.cross_entropy(apply({**params, **buffers}, (image[None],))[0], label)


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
