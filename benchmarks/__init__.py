"""Measures emotiond on the machine that it runs on. Ratios of one run can be compared between machines, times not."""

import edge  # noqa: F401 - first: it keeps OpenCV quiet, which reads how much to say when it is loaded
