"""The seven emotions, in the order of FER2013's label numbers and of the network's outputs."""

from typing import Final

EMOTIONS: Final = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
UNCERTAIN: Final = "uncertain"  # what people read where no emotion is stable; in messages it is null
