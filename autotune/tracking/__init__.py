"""Telling people how a study goes: MLflow, the console, figures. Nothing here decides anything."""
