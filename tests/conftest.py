"""The test configuration: 64 bits and strict promotion; pyproject has the shapes checked."""

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
