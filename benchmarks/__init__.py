"""Measures emotiond on the machine that it runs on. Ratios of one run can be compared between machines, times not."""
