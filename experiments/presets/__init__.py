"""Presets: settings of experiments by name, with their source."""
