"""Sampling, feasibility, confirming and deciding; the only home of Optuna."""
