"""Training on several hosts: Keras's own data parallelism over JAX.

Every process makes the same batch and feeds its own part of it, so that the losses are those of one process.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

from edge.errors import ConfigError, ServiceUnavailableError


def join(hosts: Sequence[str], index: int) -> None:
    """Connect this process, number `index`, to the others, and share each batch among them.

    hosts: one `HOST:PORT` per process; the first coordinates. Call it before anything else touches the backend.
    Raises ConfigError for a backend or an index that does not fit, ServiceUnavailableError if the others do not come.
    """
    if not 0 <= index < len(hosts):
        raise ConfigError(f"--host-index {index}: must be 0 to {len(hosts) - 1} for {len(hosts)} hosts")
    if os.environ.get("KERAS_BACKEND") != "jax":
        # fit fails under tf.distribute in Keras 3, and torch has no keras.distribution.
        raise ConfigError("--hosts: needs the JAX backend; set KERAS_BACKEND=jax")
    import jax
    import keras

    if jax.config.jax_platforms in (None, "", "cpu"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        keras.distribution.initialize(",".join(hosts), len(hosts), index)
    except RuntimeError as error:
        raise ServiceUnavailableError(f"--hosts {','.join(hosts)}: {str(error).splitlines()[0]}") from error


def share_batches() -> None:
    """From now on each process feeds its part of every batch, and gradients are averaged over all."""
    import keras

    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """This process by itself for a while: what it computes needs nothing of the others."""
    import keras

    shared = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(shared)
