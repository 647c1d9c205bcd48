"""Pure functions of recorded numbers: estimators, drift, verdicts, reliability and ranking."""
