"""Training against loops by hand, closed forms and simulate."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from helpers import bowl, bowls, bytes_of
from helpers_train import (
    KEY,
    LOSS,
    MODEL,
    SGD,
    assert_close,
    by_hand,
    options,
    samples,
    start,
    trained,
)
from thalweg import models, steps
from thalweg.errors import InputError
from thalweg.loops import holds_convolution
from thalweg.train import Objective, TrainingError, train

MOMENTUM = optax.sgd(0.1, momentum=0.9)
ADAM = optax.adam(optax.cosine_decay_schedule(0.05, 20))


@pytest.mark.parametrize(
    ("sampler", "optimizer"),
    [
        (tw.Minibatch(8), ADAM),
        (tw.Minibatch(8), MOMENTUM),
        (tw.Reshuffled(12), SGD),
        (tw.Cyclic(12), steps.damped(0.2, 0.1)),
        (tw.Full(), steps.inverse_time(0.3, 10.0)),
    ],
    ids=["adam-schedule", "momentum", "passes", "damped", "full-inverse-time"],
)
def test_a_loop_by_hand_gives_the_same_numbers(sampler, optimizer):
    run = trained(sampler=sampler, optimizer=optimizer)
    rule = steps.as_transformation(optimizer)
    params, kept, _, losses = by_hand(LOSS, start(), samples(), sampler, rule, 20)
    assert_close(run.params, params)
    assert_close(run.optimizer_state, kept)
    assert run.step == 20
    np.testing.assert_array_equal(run.history["step"], [5, 10, 15, 20])
    np.testing.assert_allclose(
        run.history["loss"], np.reshape(losses, (4, 5)).mean(axis=1), rtol=1e-11
    )
    assert np.all(np.diff(run.history["seconds"]) >= 0)


def test_a_number_is_a_step_of_gradient_descent():
    assert_close(trained(optimizer=0.2).params, trained().params)


def test_simulate_takes_the_same_path():
    # Chain j of a descent and member j of a training draw the words of (key, j, step).
    weights, groups = np.arange(1, 8) / 28, np.array([0, 1, 0, 1, 1, 0, 1])
    problem = bowls(n=7, d=2, weights=weights, groups=groups)
    sampler = tw.Resampled(3, proportions=(0.3, 0.7))
    begin = jnp.array([1.0, -2.0])
    path = tw.simulate(tw.Descent(problem, sampler, 0.1), begin, steps=50, key=KEY, chains=3)
    common = options(sampler=sampler, optimizer=0.1, steps=50, weights=weights, groups=groups)
    run = train(bowl, begin, problem.data, members=3, **common)
    # Contractions of quadratics: rounding does not grow.
    np.testing.assert_allclose(run.params, path.params, rtol=0, atol=1e-14)


def test_mean_and_covariance_on_a_quadratic():
    # theta' = (1 - eta) theta + eta mean(c): after k steps the mean is m + (1 - eta)^k (x - m) and
    # the variance eta^2 V/B (1 - (1 - eta)^2k) / (1 - (1 - eta)^2), V the variance of the centres.
    centres = np.random.default_rng(0).normal(size=(9, 1))
    eta, batch, count, chains = 0.3, 3, 12, 4000
    run = train(
        lambda p, c: 0.5 * jnp.sum(jnp.square(p - c)),
        jnp.array([2.0]),
        centres,
        sampler=tw.Minibatch(batch, replace=True),
        optimizer=eta,
        steps=count,
        key=KEY,
        members=chains,
    )
    ends = np.asarray(run.params)[:, 0]
    left = (1 - eta) ** count
    mean = centres.mean() + left * (2.0 - centres.mean())
    variance = eta**2 * centres.var() / batch * (1 - left**2) / (1 - (1 - eta) ** 2)
    # Standard errors of mean and variance; nearly normal ends. Four of them: p = 6e-5.
    assert abs(ends.mean() - mean) < 4 * np.sqrt(variance / chains)
    assert abs(ends.var() - variance) < 4 * variance * np.sqrt(2 / chains)


def test_batch_normalisation_moves_its_state_as_apply_batch_does():
    model = models.mlp((4, 6, 3), batch_norm=True)
    params, state = model.init(KEY, jnp.float64), model.init_state(jnp.float64)
    objective = Objective.of_model(model, models.cross_entropy)
    run = train(objective, params, samples(), **options(state=state))
    x, y = map(jnp.asarray, samples())
    problem = tw.FiniteSum(LOSS, (x, y))

    @jax.jit
    def step(params, state, k):
        stream = tw.random.Stream.of(KEY, 0, k)
        index = tw.Minibatch(8).draw(problem, None, None, stream, k)[0].index

        def loss(params):
            outputs, new = model.apply_batch(params, state, x[index], True)
            return jnp.mean(jax.vmap(models.cross_entropy)(outputs, y[index])), new

        gradient, state_after = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.2 * g, params, gradient), state_after

    for k in range(20):
        params, state = step(params, state, jnp.int32(k))
    assert_close(run.params, params)
    assert_close(run.state, state)


def test_a_short_batch_and_a_state_are_refused():
    # What fills up the batch has no weight, but batch normalisation would count it.
    model = models.mlp((4, 6, 3), batch_norm=True)
    objective = Objective.of_model(model, models.cross_entropy)
    params, state = model.init(KEY, jnp.float64), model.init_state(jnp.float64)
    with pytest.raises(InputError, match=r"has 4 samples of 12, .*whole batches \(36 of 40\)"):
        train(objective, params, samples(), **options(state=state, sampler=tw.Reshuffled(12)))


def test_a_state_of_ones_own():
    # Losses that are shifted by a count of samples seen, which training moves and inference reads.
    objective = Objective(
        losses=lambda p, seen, batch: (jnp.square(p - batch) + seen, seen + len(batch)),
        sample_loss=lambda p, seen, sample: jnp.square(p - sample) + seen,
    )
    run = train(
        objective,
        jnp.array(0.0),
        np.arange(6.0),
        state=jnp.array(0.0),
        **options(sampler=tw.Minibatch(2), steps=10, validation=np.array([1.0])),
    )
    assert float(run.state) == 20.0
    expected = float((run.params - 1.0) ** 2 + 20.0)
    np.testing.assert_allclose(run.history["evaluation"]["loss"], [expected], rtol=1e-12)


def test_parts_of_a_batch_add_up_to_the_batch():
    whole, parts = (trained(accumulate=k) for k in (1, 4))
    assert_close(parts.params, whole.params)
    np.testing.assert_allclose(parts.history["loss"], whole.history["loss"], rtol=1e-12)
    # The sums are others: the two are not the same program.
    assert bytes_of(parts.params) != bytes_of(whole.params)


def test_candidates_and_those_drawn_share_a_pass():
    sampler = tw.Presampled(8)
    apart = replace(Objective.of(LOSS), apart=False)
    once = trained(sampler=sampler)
    twice = train(apart, start(), samples(), **options(sampler=sampler))
    # The same sums in another order: 20 steps of numbers of order one, each rounded to 1e-16.
    for one, two in zip(*map(jax.tree.leaves, (once.params, twice.params)), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-13)
    np.testing.assert_allclose(once.history["loss"], twice.history["loss"], rtol=1e-12)
    assert bytes_of(once.params) != bytes_of(twice.params)


def test_half_precision_computes_but_does_not_keep():
    x, y = samples(dtype=np.float32)
    single = jax.tree.map(lambda p: p.astype(jnp.float32), start())
    run = train(LOSS, single, (x, y), **options(dtype="bfloat16", optimizer=MOMENTUM))
    exact = trained(optimizer=MOMENTUM)
    kept = [leaf.dtype for leaf in jax.tree.leaves((run.params, run.optimizer_state))]
    assert set(kept) == {jnp.dtype(jnp.float32)}
    losses = Objective.of(LOSS).computed_in(jnp.bfloat16).losses
    program = jax.make_jaxpr(losses)(single, (), (x[:8], y[:8]))
    assert "dot_general" in str(program)
    assert all("f32" not in line for line in str(program).splitlines() if "dot_general" in line)
    # Weights and inputs are rounded by 2^-9 = .002 of themselves, products of some units by a few
    # times that: losses of about one differ by a few hundredths at most, and are not the same.
    difference = np.abs(run.history["loss"] - exact.history["loss"])
    assert 0 < difference.max() < 0.05


def test_members_do_not_depend_on_how_many_there_are():
    three, five = (trained(members=count) for count in (3, 5))
    alone = trained()
    # Products of stacked matrices add in another order.
    assert_close(jax.tree.map(lambda x: x[:3], five.params), three.params)
    assert_close(jax.tree.map(lambda x: x[0], three.params), alone.params)
    np.testing.assert_allclose(five.history["loss"][:, 0], alone.history["loss"], rtol=1e-12)
    assert five.history["loss"].shape == (4, 5)
    other, _, _, _ = by_hand(LOSS, start(), samples(), tw.Minibatch(8), SGD, 20, chain=2)
    assert_close(jax.tree.map(lambda x: x[2], three.params), other)


def test_members_may_begin_with_parameters_of_their_own():
    run = train(LOSS, lambda key: start(key), samples(), **options(members=3, steps=0))
    firsts = np.asarray(run.params[0]["w"])
    assert all(np.abs(a - b).max() > 0.1 for a, b in itertools.combinations(firsts, 2))
    more = train(LOSS, lambda key: start(key), samples(), **options(members=4, steps=0))
    assert_close(jax.tree.map(lambda x: x[:3], more.params), run.params, rtol=0, atol=0)


def test_hyper_parameters_one_a_member():
    run = trained(optimizer=optax.adam, hyper={"learning_rate": [0.01, 0.05], "b1": [0.9, 0.5]})
    rule = optax.adam(0.05, b1=0.5)
    expected, *_ = by_hand(LOSS, start(), samples(), tw.Minibatch(8), rule, 20, chain=1)
    # A bias correction 1 - b1^k from a traced b1 is rounded otherwise.
    assert_close(jax.tree.map(lambda x: x[1], run.params), expected, rtol=1e-10)
    first = jax.tree.map(lambda x: np.abs(x[0] - x[1]).max(), run.params)
    assert max(jax.tree.leaves(first)) > 0.1


def test_training_stops_at_the_first_record_below():
    run = trained(steps=200)
    level = float(run.history["loss"][12])
    first = int(np.argmax(run.history["loss"] <= level))
    stopped = trained(steps=200, stop_below=level)
    assert stopped.stopped
    assert not run.stopped
    assert stopped.step == run.history["step"][first]
    assert bytes_of(stopped.params) == bytes_of(trained(steps=stopped.step).params)


def test_members_stop_one_by_one():
    free = trained(steps=100, members=3)
    level = float(np.sort(free.history["loss"][5])[1])
    run = trained(steps=100, members=3, stop_below=level)
    assert not np.all(run.stopped == run.stopped[0]) or np.all(run.stopped)
    for j in np.flatnonzero(run.stopped):
        first = int(np.argmax(free.history["loss"][:, j] <= level))
        at = trained(steps=int(free.history["step"][first]), members=3)
        # Programs with and without stops are the same one.
        assert_close(*(jax.tree.map(lambda x, j=j: x[j], r.params) for r in (run, at)), rtol=0)
        np.testing.assert_array_equal(run.history["loss"][first:, j], run.history["loss"][first, j])


def _image_loss(params, sample):
    x, y = sample
    image = jax.lax.conv_general_dilated(x[None, None], params["k"], (1, 1), "SAME")
    return jnp.square(jnp.sum(jnp.tanh(image) * params["w"]) - y)


def test_convolutions_run_step_by_step_and_members_in_turn():
    rng = np.random.default_rng(5)
    data = rng.normal(size=(12, 5, 5)), rng.normal(size=12)
    params = {"k": jnp.asarray(rng.normal(size=(2, 1, 3, 3))), "w": jnp.ones((2, 1, 1)) * 0.1}
    assert holds_convolution(_image_loss, params, jax.tree.map(lambda x: x[0], data))
    common = options(optimizer=optax.sgd(0.01), steps=6, sampler=tw.Minibatch(4), accumulate=2)
    run = train(_image_loss, params, data, members=2, **common)
    for j in range(2):
        expected, *_ = by_hand(
            _image_loss, params, data, tw.Minibatch(4), common["optimizer"], 6, chain=j
        )
        assert_close(jax.tree.map(lambda x, j=j: x[j], run.params), expected)
    alone = train(_image_loss, params, data, **common)
    # In turn means by the same program.
    assert bytes_of(alone.params) == bytes_of(jax.tree.map(lambda x: x[0], run.params))


def test_evaluation_is_a_mean_over_all_validation_data():
    x, y = samples(1700)  # more than a chunk, and no multiple of one
    accuracy = lambda outputs, sample: jnp.argmax(outputs).astype(jnp.int32) == sample[1]  # noqa: E731
    run = trained(validation=(x, y), metrics={"accuracy": accuracy}, evaluate_every=10, members=3)
    looks = run.history["evaluation"]
    np.testing.assert_array_equal(looks["step"], [0, 10, 20])
    losses_of = jax.jit(tw.FiniteSum(LOSS, (x, y)).losses)
    for j in range(3):
        params = jax.tree.map(lambda p, j=j: p[j], run.params)
        losses = losses_of(params)
        np.testing.assert_allclose(looks["loss"][-1, j], np.mean(losses), rtol=1e-12)
        right = models.accuracy(MODEL, params, x, y)
        np.testing.assert_allclose(looks["accuracy"][-1, j], right, rtol=6e-8)  # in float32


def test_a_loss_that_is_not_finite_names_step_and_samples():
    # Sample 3 is drawn some day, and its gradient is then 1e200 times its residual.
    scale = np.where(np.arange(10) == 3, 1e200, 1.0)
    loss = lambda p, s: 0.5 * s["scale"] * jnp.square(p - s["centre"])  # noqa: E731
    data = {"scale": scale, "centre": np.arange(10.0)}
    sampler = tw.Minibatch(2)
    with pytest.raises(TrainingError, match="not finite any more from step") as caught:
        train(loss, jnp.array(0.5), data, **options(sampler=sampler, steps=500))
    error = caught.value
    problem = tw.FiniteSum(loss, data)
    drawn = [
        3
        in np.asarray(sampler.draw(problem, None, None, tw.random.Stream.of(KEY, 0, k), k)[0].index)
        for k in range(error.step)
    ]
    # Drawn once the step is of size 1e200; drawn again, its loss overflows.
    assert sum(drawn) >= 1
    assert 3 in error.norms or np.inf in error.norms.values()
    assert error.checkpoint is None
    assert "there is no checkpoint" in str(error)
    assert f"step {error.step}" in str(error)


def test_gradients_that_are_not_finite_are_found_before_the_loss():
    # The derivative of a root at zero is infinite where the loss is still zero.
    loss = lambda p, c: jnp.sqrt(jnp.abs(p - c))  # noqa: E731
    with pytest.raises(TrainingError, match="step 1") as caught:
        train(loss, jnp.array(1.0), np.ones(3), **options(sampler=tw.Minibatch(1), steps=3))
    assert caught.value.step == 1
    assert not np.isfinite(next(iter(caught.value.norms.values())))


def test_members_that_diverge_leave_the_others_alone():
    def run(**changes):
        common = options(sampler=tw.Minibatch(2), **changes)
        return train(bowl, jnp.ones(2), bowls().data, **common)

    both = run(optimizer=optax.sgd, hyper={"learning_rate": [0.2, 1e300]})
    assert both.diverged[0] == -1
    assert 0 < both.diverged[1] < 5
    assert_close(both.params[0], run().params)
    assert np.all(np.isnan(both.history["loss"][:, 1]))
    with pytest.raises(TrainingError, match="every one of 2 members"):
        run(optimizer=optax.sgd, hyper={"learning_rate": [1e299, 1e300]})


def test_progress_says_how_fast_and_how_long_yet():
    told = []
    trained(steps=2000, progress=lambda *what: told.append(what))
    dones = [done for done, _, _ in told]
    assert dones == sorted(dones)
    assert told[-1][:2] == (2000, 2000)
    assert all("samples/s" in text and "left" in text for *_, text in told)


def test_equal_objectives_share_a_program():
    from helpers import counted_compilations

    trained()
    with counted_compilations() as count:
        train(
            models.supervised(models.mlp((4, 6, 3), "tanh"), models.cross_entropy),
            start(),
            samples(),
            **options(steps=35),
        )
    assert count() == 0


X, Y = samples()
REFUSED = {
    "labels": (
        lambda: train(LOSS, start(), (X, Y + 1), **options()),
        "label .* is 3, and .* 0, ..., 2",
    ),
    "width": (lambda: train(LOSS, start(), (X[:, :3], Y), **options()), "3 numbers; expected 4"),
    "not finite": (lambda: train(LOSS, start(), (X * np.nan, Y), **options()), "not finite"),
    "batch": (lambda: trained(sampler=tw.Minibatch(41)), "batch size 41"),
    "parts": (lambda: trained(accumulate=3), "cannot be divided"),
    "steps": (lambda: trained(steps=-1), "steps must be a whole number"),
    "record": (lambda: trained(record_every=0), "record_every must be"),
    "rule": (lambda: trained(optimizer=-1.0), "positive"),
    "function": (lambda: trained(optimizer=optax.adam), "hyper="),
    "hyper": (
        lambda: trained(optimizer=optax.sgd, hyper={"rate": [0.1]}),
        "function of rate",
    ),
    "members": (
        lambda: trained(optimizer=optax.sgd, hyper={"learning_rate": [0.1]}, members=2),
        "1 values and members is 2",
    ),
    "metrics": (
        lambda: train(
            bowl,
            jnp.zeros(2),
            bowls().data,
            **options(sampler=tw.Full(), metrics={"a": max}, validation=bowls().data),
        ),
        "outputs of this loss are not",
    ),
    "metrics alone": (lambda: trained(metrics={"a": lambda o, s: o[0]}), "need validation"),
    "validation": (lambda: trained(validation=(X[:, :2], Y)), "validation data"),
    "params": (
        lambda: train(LOSS, {"w": "text"}, samples(), **options()),
        r"params\['w'\] is 'str'",
    ),
    "dtype": (lambda: trained(dtype="int8"), "expected a floating-point type"),
    "key": (lambda: trained(key=jax.random.split(KEY)), "needs one key"),
    "state": (
        lambda: train(
            Objective(lambda p, s, b: (jnp.square(p - b), (s, s)), lambda p, s, b: p - b),
            jnp.array(0.0),
            np.arange(9.0),
            **options(state=jnp.array(0.0)),
        ),
        "state after a batch",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_before_any_work(call, message):
    with pytest.raises(InputError, match=message):
        call()
