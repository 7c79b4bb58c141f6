"""Made tests/models/*.tflite: networks that the daemon must refuse. Needs TensorFlow; run it from the repository."""

from pathlib import Path

import tensorflow as tf

FOLDER = Path("tests/models")


def save(name: str, shape: tuple[int, ...], classes: int, dtype: tf.DType = tf.float32, int8: bool = False) -> None:
    """A network of one matrix product."""
    weights = tf.random.stateless_normal([shape[-1], classes], seed=(1, 2))

    @tf.function(input_signature=[tf.TensorSpec((1, *shape), dtype)])
    def network(pixels: tf.Tensor) -> tf.Tensor:
        means = tf.reduce_mean(tf.cast(pixels, tf.float32), axis=[1, 2])
        return tf.nn.softmax(tf.matmul(means, weights))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()])
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([tf.random.uniform((1, *shape))] for _ in range(50))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.tflite").write_bytes(converter.convert())


save("five_classes", (48, 48, 1), 5)
save("colour", (48, 48, 3), 7)
save("integers", (48, 48, 1), 7, tf.int32)
save("other_scale", (48, 48, 1), 7, int8=True)
