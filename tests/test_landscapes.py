"""The analytic problems against formulas written out here, Newton's method and quadrature."""

import importlib
import inspect
import pkgutil
from contextlib import contextmanager
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import root, root_scalar

from thalweg import landscapes
from thalweg.errors import InputError

EPS = np.finfo(float).eps

VARIANTS = {
    **{name: {} for name in landscapes.names()},
    "piecewise-linear K=2": {"K": 2.0, "epsilon": 0.01, "a1": 0.3},
    "robust-classification deviation": {"spread": "deviation"},
    "robust-regression near": {"start": "near"},
    "mueller-brown -200, 1/4": {"a1": -200.0, "scale": 0.25},
    "atoms literal": {"second_branch": "literal"},
    "three-quadratics minimum": {"start": "minimum"},
    "cyclic-pair .02": {"g0": 0.02},
    "double-well 2": {"sigma": 2.0},
}


@cache
def built(variant):
    function = getattr(landscapes, variant.split()[0].replace("-", "_"))
    return function(**VARIANTS[variant])


@pytest.fixture(params=VARIANTS)
def landscape(request):
    return built(request.param)


@contextmanager
def without_64_bits():
    jax.config.update("jax_enable_x64", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", True)


def in_box(landscape, count):
    key = jax.random.key(7)
    shape = (count, len(landscape.start))
    return jax.random.uniform(key, shape, minval=landscape.lower, maxval=landscape.upper)


def known_points(landscape):
    return landscape.minima + landscape.saddles


# Compiled once for each loss and shape; problems are pytrees. Points are rows, on a leading axis.


def over_points(function):
    return jax.jit(jax.vmap(function, in_axes=(None, 0)))


values = over_points(lambda problem, params: problem.value(params))
gradients = over_points(lambda problem, params: problem.gradient(params))
hessians = over_points(lambda problem, params: jax.hessian(problem.value)(params))
sample_losses = over_points(lambda problem, params: problem.losses(params))
sample_gradients = over_points(lambda problem, params: problem.gradients(params))
sample_hessians = over_points(lambda problem, params: jax.hessian(problem.losses)(params))


def rows_of(points):
    return jnp.stack([point.params for point in points])


# The registry


def test_every_module_is_in_the_registry():
    modules = {m.name for m in pkgutil.iter_modules(landscapes.__path__)} - {"base"}
    assert modules == {name.replace("-", "_") for name in landscapes.names()}


@pytest.mark.parametrize("name", landscapes.names())
def test_the_registry_and_the_module_agree(name):
    attribute = name.replace("-", "_")
    module = importlib.import_module(f"thalweg.landscapes.{attribute}")
    function = getattr(landscapes, attribute)
    assert function is getattr(module, attribute)
    assert attribute in landscapes.__all__
    assert landscapes.get(name).name == name
    kinds = {p.kind for p in inspect.signature(function).parameters.values()}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY}


def test_describe_has_one_line_each():
    lines = landscapes.describe()
    assert tuple(name for name, _ in lines) == landscapes.names()
    for _, line in lines:
        assert 20 < len(line) < 90
        assert line.endswith(".")


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown problem 'muller-brown'; did you mean 'mueller-"):
        landscapes.get("muller-brown")


# What holds for every landscape


def test_the_setting_is_coherent(landscape):
    d = len(landscape.start)
    assert landscape.lower.shape == landscape.upper.shape == (d,)
    landscape.problem.check_params(landscape.start)
    for params in [landscape.start, *(point.params for point in known_points(landscape))]:
        assert params.shape == (d,)
        assert jnp.all((landscape.lower < params) & (params < landscape.upper))
    first = landscape.step(0) if callable(landscape.step) else landscape.step
    assert first > 0
    assert landscape.steps > 0
    assert landscape.source


def test_known_values(landscape):
    points = known_points(landscape)
    if not points:
        assert landscape.name == "robust-regression"
        return
    scale = float(jnp.max(jnp.abs(sample_losses(landscape.problem, rows_of(points)))))
    expected = [point.value for point in points]
    # Exponents and sums round, relative to the largest term.
    np.testing.assert_allclose(
        values(landscape.problem, rows_of(points)), expected, rtol=0, atol=100 * EPS * (1 + scale)
    )


def test_known_points_are_stationary_and_of_the_right_kind(landscape):
    points = [p for p in known_points(landscape) if landscape.smooth and "kink" not in p.name]
    if not points:
        assert landscape.name in ("robust-regression", "piecewise-linear")
        return
    problem, params = landscape.problem, rows_of(points)
    slopes, H = gradients(problem, params), np.asarray(hessians(problem, params))
    terms = float(jnp.max(jnp.abs(sample_gradients(problem, params))))
    for point, slope, h in zip(points, slopes, H, strict=True):
        # A rounding of the position moves the gradient by H, one of the terms by their size.
        size = np.abs(h).max() * (1 + float(jnp.max(jnp.abs(point.params)))) + terms
        np.testing.assert_allclose(slope, 0, atol=10 * EPS * size)
        eigenvalues = np.linalg.eigvalsh(h)
        assert (eigenvalues < 0).sum() == (point in landscape.saddles)
        assert np.abs(eigenvalues).min() > 1e-2


@pytest.mark.parametrize("variant", ["piecewise-linear", "piecewise-linear K=2", "toy-pair"])
def test_kinks_are_minima_and_tops_by_their_one_sided_slopes(variant):
    landscape = built(variant)
    points = [(p, 1.0) for p in landscape.minima] + [(p, -1.0) for p in landscape.saddles]
    for point, sign in points:
        sides = jnp.stack([point.params - 1e-3, point.params + 1e-3])
        left, right = gradients(landscape.problem, sides)[:, 0]
        assert sign * left < 0 < sign * right


def test_gradients_of_the_samples_against_differences(landscape):
    problem, h = landscape.problem, 1e-5
    params = jnp.stack([landscape.start, *in_box(landscape, 5)])
    direction = jax.random.normal(jax.random.key(1), landscape.start.shape)

    def difference(s):
        ahead, behind = (sample_losses(problem, params + t * direction) for t in (s, -s))
        return (ahead - behind) / (2 * s)

    coarse, fine = difference(h), difference(h / 2)
    each = sample_gradients(problem, params)
    # The error of the fine one is c h^2/4, a third of the difference; three times that, and
    # rounding (of the exponents, which multiplies by up to 1e3, too).
    rounding = 1e3 * EPS * (1 + jnp.abs(sample_losses(problem, params))) / h
    assert jnp.all(jnp.abs(fine - each @ direction) <= jnp.abs(coarse - fine) + rounding)
    np.testing.assert_allclose(
        gradients(problem, params),
        jnp.einsum("n,pnd->pd", problem.weights, each),
        atol=1e2 * EPS * float(jnp.max(jnp.abs(each))),
        rtol=0,
    )


def test_float32_parameters_give_float32(landscape):
    params = landscape.start.astype(jnp.float32)
    value = values(landscape.problem, params[None])[0]
    assert value.dtype == gradients(landscape.problem, params[None]).dtype == jnp.float32
    # Sums of terms up to 1e2 in size, exponents up to 1e2: 1e4 roundings of 6e-8 at the worst.
    reference = values(landscape.problem, landscape.start[None])[0]
    np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", landscapes.names())
def test_without_64_bits_it_is_the_same_problem(name):
    reference = built(name)
    expected = values(reference.problem, reference.start[None])[0]
    with without_64_bits():
        landscape = landscapes.get(name)
        value = values(landscape.problem, landscape.start[None])[0]
    assert landscape.start.dtype == value.dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(value), expected, rtol=1e-4, atol=1e-6)
    leaves = [jax.tree.leaves(side.problem.data) for side in (landscape, reference)]
    for mine, theirs in zip(*leaves, strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=1e-6)
    for point, exact in zip(known_points(landscape), known_points(reference), strict=True):
        np.testing.assert_allclose(np.asarray(point.params), exact.params, rtol=1e-6, atol=1e-12)
        assert point.value == exact.value


# Piecewise linear


@pytest.mark.parametrize(("a1", "epsilon", "K"), [(0.4, 0.1, 5.0), (0.3, 0.01, 2.0)])
def test_piecewise_values_and_slopes(a1, epsilon, K):
    landscape = landscapes.piecewise_linear(a1=a1, epsilon=epsilon, K=K)
    theta = np.linspace(-2, 1, 1001)
    losses = sample_losses(landscape.problem, jnp.asarray(theta)[:, None])
    first = np.where(theta <= 0, np.abs(theta + 1) - 1, epsilon * theta)
    second = np.where(theta <= 0, -epsilon * theta, np.abs(K * theta - 1) - 1)
    np.testing.assert_allclose(losses, np.stack([first, second], 1), atol=10 * EPS)
    np.testing.assert_allclose(landscape.problem.weights, [a1, 1 - a1], atol=EPS)
    assert landscape.lipschitz == (1.0, K)
    # The four regions as the document lists them; the kinks -1, 0 and 1/K go with their left.
    regions = {-1.5: (-1, -epsilon), -0.5: (1, -epsilon), 0.5 / K: (epsilon, -K), 0.9: (epsilon, K)}
    kinks = {-1.0: (-1, -epsilon), 0.0: (1, -epsilon), 1 / K: (epsilon, -K)}
    at = jnp.array([*regions, *kinks])[:, None]
    slopes = sample_gradients(landscape.problem, at)[..., 0]
    np.testing.assert_allclose(slopes, [*regions.values(), *kinks.values()], atol=EPS)


def test_piecewise_minima_have_the_printed_depths_and_names():
    flat, sharp = landscapes.piecewise_linear().minima
    assert (flat.name, sharp.name) == ("flat", "sharp, global")
    np.testing.assert_allclose([flat.value, sharp.value], [-0.34, -0.592], atol=4 * EPS)
    swapped = landscapes.piecewise_linear(a1=0.6, K=1.1).minima
    assert [point.name for point in swapped] == ["sharp, global", "flat"]


# Robust statistics


def expectation(power, theta):
    """Population means of L, L', L'' or (L')^2 at theta by Gauss and Hermite's quadrature."""
    z, w = np.polynomial.hermite_e.hermegauss(80)
    total = 0.0
    for share, mean, deviation in ((1 / 6, 20.0, 1.0), (5 / 6, 0.5, 0.5)):
        x = mean + deviation * z
        for y in (0.0, 1.0):
            r = y - theta * x
            e = np.exp(-r * r / 2)
            integrand = {
                "L": 1 - e,
                "L^2": (1 - e) ** 2,
                "L'": -x * r * e,
                "L'^2": (x * r * e) ** 2,
                "L''": x * x * (1 - r * r) * e,
                "L''^2": (x * x * (1 - r * r) * e) ** 2,
            }[power]
            total += share / 2 * (w @ integrand) / w.sum()
    return total


@pytest.mark.parametrize(
    ("which", "bracket", "printed"),
    [(0, (0.0, 0.1), (0.028, 0.18, 44.0)), (1, (0.3, 0.8), (0.49, 0.30, 0.26))],
)
def test_classification_minima_are_the_populations(which, bracket, printed):
    landscape = built("robust-classification")
    point = landscape.minima[which]
    theta = root_scalar(lambda t: expectation("L'", t), bracket=bracket).root
    curvature = expectation("L''", theta)
    mine = (
        float(point.params[0]),
        point.value,
        hessians(landscape.problem, point.params[None])[0, 0, 0],
    )
    population = (theta, expectation("L", theta), curvature)

    def deviation(power):
        return np.sqrt(expectation(f"{power}^2", theta) - expectation(power, theta) ** 2)

    # One standard error of a mean of 4800; the sharp L'' also moves with theta, by L''' (at most
    # 1e2 there, 4 at the flat one).
    error = np.array([deviation("L'") / curvature, deviation("L"), deviation("L''")]) / 4800**0.5
    error[2] += (1e2, 4.0)[which] * error[0]
    assert np.all(np.abs(np.subtract(mine, population)) < 4 * error)
    # The printed numbers are of another draw of the data, and rounded in their last digit.
    rounding = np.array([5e-4, 5e-3, 0.5]) if which == 0 else np.array([5e-3, 5e-3, 5e-3])
    assert np.all(np.abs(np.subtract(printed, population)) < 4 * error + rounding)


@pytest.mark.parametrize(("spread", "deviation"), [("variance", 0.5), ("deviation", 0.25)])
def test_classification_data(spread, deviation):
    problem = landscapes.robust_classification(key=jax.random.key(3), spread=spread).problem
    x, y = (np.asarray(part) for part in problem.data)
    np.testing.assert_allclose(problem.group_weights, [1 / 6, 5 / 6], atol=1e-12)
    assert set(y) == {0.0, 1.0}
    # Four standard errors: sd/sqrt(n) of a mean, sd/sqrt(2n) of a standard deviation.
    assert abs(y.mean() - 0.5) < 4 * 0.5 / 4800**0.5
    for label, mean, sd, n in ((0, 20.0, 1.0, 800), (1, 0.5, deviation, 4000)):
        group = x[np.asarray(problem.groups) == label, 0]
        assert len(group) == n
        assert abs(group.mean() - mean) < 4 * sd / n**0.5
        assert abs(group.std() - sd) < 4 * sd / (2 * n) ** 0.5


def test_classification_losses_are_welschs():
    landscape = built("robust-classification")
    x, y = (np.asarray(part) for part in landscape.problem.data)
    theta = np.array([[-0.5], [0.03], [1.2]])
    expected = 1 - np.exp(-((y - theta * x[:, 0]) ** 2) / 2)
    losses = sample_losses(landscape.problem, jnp.asarray(theta))
    np.testing.assert_allclose(losses, expected, atol=4 * EPS)


def test_another_key_draws_other_data():
    values = [
        landscapes.robust_classification(key=jax.random.key(k)).minima[0].value for k in (0, 0, 1)
    ]
    assert values[0] == values[1] != values[2]


def test_regression_data():
    landscape = built("robust-regression")
    x, y = (np.asarray(part) for part in landscape.problem.data)
    beta = np.asarray(landscape.lower + landscape.upper) / 2
    np.testing.assert_allclose(landscape.problem.group_weights, [5 / 7, 2 / 7], atol=1e-12)
    groups = np.asarray(landscape.problem.groups)
    for label, mean, sd, n in ((0, 20.0, 1.0, 2000), (1, 0.25, 0.5, 800)):
        group = x[groups == label]
        assert group.shape == (n, 10)
        # Four standard errors, as above.
        assert abs(group.mean() - mean) < 4 * sd / (10 * n) ** 0.5
        assert abs(group.std() - sd) < 4 * sd / (20 * n) ** 0.5
    largest = np.abs(x @ beta).max()
    u = (y - x @ beta) / (3 * largest)
    # Uniform on (-1, 1): variance 1/3, fourth moment 1/5; the noise of .1 is 1e-2 of the range.
    assert 0.99 < np.abs(u).max() < 1.01
    assert abs((u**2).mean() - 1 / 3) < 4 * (1 / 5 - 1 / 9) ** 0.5 / 2800**0.5


def test_regression_starts():
    literal, near = built("robust-regression"), built("robust-regression near")
    np.testing.assert_array_equal(literal.problem.data[1], near.problem.data[1])
    in_group_1 = np.asarray(literal.problem.groups) == 0
    norms = [
        np.linalg.norm(sample_gradients(s.problem, s.start[None])[0], axis=1)
        for s in (literal, near)
    ]
    # The literal start leaves group 1 without any gradient: exp underflows in all 2000 of them.
    assert norms[0][in_group_1].max() == 0
    assert norms[0][~in_group_1].max() > 0.1
    assert norms[1][in_group_1].max() > 1
    # 5e + N(0, I) and N(0, I)/10: the mean of ten entries has the error 1/sqrt(10), or a tenth.
    beta = (literal.lower + literal.upper) / 2
    assert abs(float(jnp.mean(literal.start - beta)) - 5) < 4 / 10**0.5
    assert abs(float(jnp.mean(near.start - beta))) < 0.4 / 10**0.5


# Gaussians


def gaussian_mean(rows, position):
    """Value, gradient and Hessian of the mean of A exp(a dx^2 + b dx dy + c dy^2)."""
    A, a, b, c, x, y = np.asarray(rows).T
    dx, dy = position[0] - x, position[1] - y
    terms = A * np.exp(a * dx**2 + b * dx * dy + c * dy**2)
    u, v = 2 * a * dx + b * dy, b * dx + 2 * c * dy
    H = [
        [terms * (u * u + 2 * a), terms * (u * v + b)],
        [terms * (u * v + b), terms * (v * v + 2 * c)],
    ]
    return terms.mean(), np.array([(terms * u).mean(), (terms * v).mean()]), np.mean(H, axis=2)


def mueller_brown_rows(A1):
    return np.transpose(
        [
            (A1, -100, -170, 15),
            (-1, -1, -6.5, 0.7),
            (0, 0, 11, 0.6),
            (-10, -10, -6.5, 0.7),
            (1, 0, -0.5, -1),
            (0, 0.5, 1.5, 1),
        ]
    )


def atom_rows(literal):
    rows = []
    for k in range(1, 1001):
        j = k if literal else k - 500
        x, y = (2 - 0.006 * k,) * 2 if k <= 500 else (1.8 + 0.0024 * j, -1 + 0.006 * j)
        shape = (-50 - 0.15 * k, -2 - 0.018 * k, -0.1 + 0.0002 * k, -10 + 0.009 * k)
        rows.append((*shape, x, y))
    return np.array(rows)


GAUSSIANS = {
    "mueller-brown": (
        mueller_brown_rows(-150),
        1.0,
        # x, y, value of V/4; the saddles are listed by their values.
        [
            (-0.5582, 1.4417, -36.675),
            (-0.0717, 0.4790, -19.760),
            (0.5426, 0.0471, -16.644),
            (0.29, 0.22, -14.393),
            (-0.822, 0.624, -10.157),
        ],
    ),
    # The potential as the literature has it, V to three digits, here V/16.
    "mueller-brown -200, 1/4": (
        mueller_brown_rows(-200),
        0.25,
        [
            (-0.558, 1.442, -146.700 / 4),
            (-0.050, 0.467, -80.768 / 4),
            (0.623, 0.028, -108.167 / 4),
            (0.212, 0.293, -72.249 / 4),
            (-0.822, 0.624, -40.665 / 4),
        ],
    ),
    "atoms": (
        atom_rows(literal=False),
        1.0,
        [(2.7509, 1.2968, -24.271), (-0.6077, -0.5914, -8.428), (2.2239, 1.7331, -2.494)],
    ),
    "atoms literal": (
        atom_rows(literal=True),
        1.0,
        [(3.95, 4.29, -24.239), (-0.6077, -0.5914, -8.428), (2.54, 1.90, -1.107)],
    ),
}


@pytest.mark.parametrize("variant", GAUSSIANS)
def test_gaussian_stationary_points_by_newton(variant):
    rows, scale, listed = GAUSSIANS[variant]
    landscape = built(variant)
    points = known_points(landscape)
    assert len(points) == len(listed)
    for point, (x, y, value) in zip(points, listed, strict=True):
        solution = root(
            lambda p: gaussian_mean(rows, p)[1],
            (x, y),
            jac=lambda p: gaussian_mean(rows, p)[2],
            tol=1e-14,
        )
        np.testing.assert_allclose(point.params, solution.x, rtol=0, atol=1e-12)
        # Half a unit of the last digit listed: of the position in the second or a later one.
        np.testing.assert_allclose(point.params, (x, y), rtol=0, atol=5e-3)
        np.testing.assert_allclose(point.value / scale, value, rtol=0, atol=6e-4)


@pytest.mark.parametrize("variant", GAUSSIANS)
def test_gaussian_values_and_gradients(variant):
    rows, scale, _ = GAUSSIANS[variant]
    landscape = built(variant)
    params = in_box(landscape, 20)
    value, gradient, H = map(
        np.array, zip(*(gaussian_mean(rows, p) for p in np.asarray(params)), strict=True)
    )
    # Exponents up to 1e2 carry 1e2 roundings; derivatives multiply them by up to 1e2 each.
    problem = landscape.problem
    for mine, reference, size in (
        (values(problem, params), value, 1e3),
        (gradients(problem, params), gradient, 1e4),
        (hessians(problem, params), H, 1e5),
    ):
        np.testing.assert_allclose(mine, scale * reference, rtol=1e4 * EPS, atol=size * EPS)


def test_mueller_brown_terms_are_groups_of_their_own():
    problem = landscapes.mueller_brown().problem
    np.testing.assert_allclose(problem.group_weights, np.full(4, 0.25))


def test_atoms_step_falls_geometrically():
    landscape = landscapes.atoms()
    steps = [float(landscape.step(k)) for k in (0, 2500, 5000)]
    # Optax schedules run in float32.
    np.testing.assert_allclose(steps, [2e-3, (2e-3 * 1e-5) ** 0.5, 1e-5], rtol=1e-5)


# Toys


def test_toy_pair_curvatures_and_thresholds():
    landscape = landscapes.toy_pair()
    left, h = sample_hessians(landscape.problem, rows_of(landscape.minima))[..., 0, 0]
    np.testing.assert_allclose(left, [2, 2], atol=4 * EPS)
    np.testing.assert_allclose(h, [0.2, 3.8], atol=8 * EPS)
    h = np.asarray(h)
    factors = 1 - landscape.step * h
    # Half a unit of the last digit listed.
    assert abs((factors**2).mean() - 1.7476) < 5e-5
    assert abs(np.log(np.abs(factors)).mean() - 0.177997) < 5e-7
    assert abs(2 * h.mean() / (h**2).mean() - 0.5524862) < 5e-8


def test_toy_pair_branches_and_kinks():
    landscape = landscapes.toy_pair()
    x = np.linspace(-3, 6, 100)[:, None]
    losses = sample_losses(landscape.problem, jnp.asarray(x))
    expected = np.minimum(x**2, np.array([0.1, 1.9]) * (x - 1) ** 2)
    np.testing.assert_allclose(losses, expected, atol=40 * EPS)
    for kink in (0.5795501, 3.6426721):
        sides = jnp.array([[kink - 1e-6], [kink + 1e-6]])
        slopes = sample_gradients(landscape.problem, sides)[:, 1, 0]
        # Curvatures up to 3.8 over 1e-6.
        np.testing.assert_allclose(sorted(slopes), sorted([2 * kink, 3.8 * (kink - 1)]), atol=1e-5)
    np.testing.assert_allclose(landscape.saddles[0].params, 0.5795501, atol=5e-8)


def test_three_quadratics():
    landscape = landscapes.three_quadratics()

    def products(x):
        g = np.asarray(sample_gradients(landscape.problem, jnp.array([x]))[0])
        return g @ g.T

    # Smallest products of gradients, one draw, at the minimum and far away.
    np.testing.assert_allclose(products([0.0, 0.0]).min(), -0.5, atol=4 * EPS)
    np.testing.assert_allclose(products([5.0, 0.0]).min(), 16, atol=100 * EPS)
    # x' = (1 - step) x + step c: E|x|^2 = step^2 E|c|^2/(1 - (1 - step)^2).
    step, noise = landscape.step, np.trace(products([0.0, 0.0])) / 3
    np.testing.assert_allclose(step**2 * noise / (1 - (1 - step) ** 2), 0.2, atol=4 * EPS)
    np.testing.assert_allclose(landscape.start, [5, 0])
    np.testing.assert_allclose(landscapes.three_quadratics(start="minimum").start, 0)


@pytest.mark.parametrize(("g0", "cycle"), [(0.83, 0.0301036), (0.02, 0.00072539)])
def test_cyclic_pair_ends_in_the_two_cycle(g0, cycle):
    landscape = landscapes.cyclic_pair(g0=g0)
    slopes = sample_gradients(landscape.problem, jnp.array([[0.0]]))[0, :, 0]
    np.testing.assert_allclose(slopes, [g0, -g0])

    def one(x, index):
        return x - landscape.step * landscape.problem.gradients(x, index[None])[0], x

    order = jnp.arange(landscape.steps) % 2
    end, _ = jax.lax.scan(one, landscape.start, order)
    # After an even number of steps the last was with -g0; .93^400 = 2e-13, digits as listed.
    assert abs(float(end[0]) - cycle) < 6e-8


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_double_well(sigma):
    landscape = landscapes.double_well(sigma=sigma)
    x = np.array([-1.7, 0.3, 1.0])
    slopes = np.asarray(sample_gradients(landscape.problem, jnp.asarray(x)[:, None]))[..., 0]
    np.testing.assert_allclose(slopes.mean(axis=1), x**3 - x, atol=10 * EPS)
    np.testing.assert_allclose(slopes.var(axis=1), sigma**2, rtol=20 * EPS)
    curvatures = hessians(landscape.problem, rows_of(known_points(landscape)))[:, 0, 0]
    np.testing.assert_allclose(curvatures, [2, 2, -1], atol=4 * EPS)


def test_flat_or_not_terms():
    landscape = landscapes.flat_or_not()
    left, right = np.asarray(sample_gradients(landscape.problem, rows_of(landscape.minima)))
    np.testing.assert_allclose(left[:, 0], np.array([1, 1, 1, -3]) * 2.77 / 3, atol=10 * EPS)
    np.testing.assert_array_equal(right, 0)
    np.testing.assert_allclose(landscape.start - landscape.step * left[3], 2.185, atol=4 * EPS)
    x = np.linspace(-0.4, 3.4, 39)
    F = 0.39 * (x - 0.8) ** 2 * (x - 2.4) ** 2
    at = jnp.asarray(x)[:, None]
    np.testing.assert_allclose(values(landscape.problem, at), F, atol=40 * EPS)
    bump = np.where(np.abs(x - 0.8) < 0.7, np.cos(np.pi * (x - 0.8) / 1.4) ** 2, 0)
    g = sample_gradients(landscape.problem, at)[..., 0]
    np.testing.assert_allclose((g[:, 0] - g[:, 3]) * 3 / (4 * 2.77), bump, atol=40 * EPS)


def test_flat_or_not_is_left_by_single_draws_only():
    landscape = landscapes.flat_or_not()
    chains, rng = 500, np.random.default_rng(0)
    permutations = rng.permuted(np.tile(np.arange(4), (landscape.steps, chains, 1)), axis=2)

    @jax.jit
    def ends(start, draws):
        def one(x, index):
            gradients = jax.vmap(landscape.problem.gradients)(x, index)
            return x - landscape.step * gradients.mean(axis=1), None

        return jax.lax.scan(one, jnp.full((chains, 1), start), draws)[0]

    one, two = jnp.asarray(permutations[..., :1]), jnp.asarray(permutations[..., :2])
    # None of 4000 chains was left after 100 steps elsewhere: fewer than 1 in 1000 (95 per cent).
    assert jnp.mean(ends(0.8, one) > 1.6) > 0.99
    np.testing.assert_array_equal(ends(2.4, one), 2.4)
    assert jnp.all(ends(0.8, two) < 1.6)


# Options


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("piecewise_linear", {"a1": 1.0}, "a1 is 1.0; expected a proportion"),
        ("piecewise_linear", {"a1": 0.05}, r"leave one well only.*make epsilon smaller"),
        ("piecewise_linear", {"K": 0.0}, "K is 0.0; expected a finite number above zero"),
        ("piecewise_linear", {"epsilon": float("nan")}, "epsilon is nan"),
        ("robust_classification", {"spread": "varience"}, "did you mean 'variance'"),
        ("robust_regression", {"start": "far"}, "unknown start 'far'.*literal, near"),
        ("mueller_brown", {"a1": -170.0}, r"a1 is -170.0; expected -150 .* or -200"),
        ("mueller_brown", {"scale": 0.0}, "scale is 0.0"),
        ("atoms", {"second_branch": "fixed"}, "unknown second branch 'fixed'"),
        ("three_quadratics", {"start": "near"}, "expected one of: far, minimum"),
        ("cyclic_pair", {"g0": -1.0}, "g0 is -1.0"),
        ("double_well", {"sigma": float("inf")}, "sigma is inf"),
    ],
)
def test_impossible_options(name, options, message):
    with pytest.raises(InputError, match=message):
        getattr(landscapes, name)(**options)
