"""Functions that predictors share: labels, cost features, regressions, metrics, files."""
