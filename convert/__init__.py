"""From a trained Keras network to the two TFLite files that ship: quantized, compared, and provable on a device."""
