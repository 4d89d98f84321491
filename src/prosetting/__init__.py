"""ProSetting: rounds of progressive self-training for reasoning models."""

__version__ = "0.1.0"
