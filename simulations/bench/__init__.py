"""The benchmark: every figure is a ratio measured side by side in one run, or a size that is reported."""
