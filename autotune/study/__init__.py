"""Probing, searching, racing, choosing, confirming and deciding; the only home of Optuna."""
