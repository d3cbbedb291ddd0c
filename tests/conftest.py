"""The test configuration: 64 bits, strict promotion; shapes are checked by the pytest option in pyproject."""

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
