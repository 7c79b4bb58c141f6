"""The workstation: FER2013 in, a trained network and what there is to know about it out.

The daemon never imports this package. Importing it, or `training.data`, loads neither Keras nor TensorFlow.
"""
